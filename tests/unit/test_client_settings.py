"""What a client command reads is what the servers read: the same names, the same places, in the same order."""

from __future__ import annotations

from pathlib import Path

import pytest

import client_settings
from settings import Settings, get_settings

NAMES = ("data_dir", "api_url", "token")
PLACES = ("environment", "dotenv", "secret")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without `.env`, an environment without settings, and a host without secrets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client_settings, "SECRETS", tmp_path / "secrets")
    for name in NAMES:
        monkeypatch.delenv(f"SCOREHOUSE_{name.upper()}", raising=False)
    get_settings.cache_clear()


def put(place: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match place:
        case "environment":
            monkeypatch.setenv(f"SCOREHOUSE_{name.upper()}", f"of {place}")
        case "dotenv":
            with Path(".env").open("a") as file:
                file.write(f"# a comment\nSCOREHOUSE_{name.upper()}='of {place}'\n")
        case "secret":
            Path("secrets").mkdir(exist_ok=True)
            Path("secrets", f"scorehouse_{name}").write_text(f"of {place}\n")


def of_servers() -> dict[str, str | None]:
    read: Settings = get_settings()
    get_settings.cache_clear()
    token = None if read.token is None else read.token.get_secret_value()
    return {"data_dir": str(read.data_dir), "api_url": read.api_url, "token": token}


def of_clients() -> dict[str, str | None]:
    read = client_settings.read()
    return {"data_dir": str(read.data_dir), "api_url": read.api_url, "token": read.token}


def test_where_nothing_is_set_they_agree() -> None:
    assert of_clients() == of_servers() == {"data_dir": ".scorehouse", "api_url": None, "token": None}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first", range(len(PLACES)))
def test_the_first_place_that_has_it_counts(name: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in PLACES[first:]:
        put(place, name, monkeypatch)
    assert of_clients() == of_servers()
    assert of_clients()[name] == f"of {PLACES[first]}"


def test_small_letters_and_empty_values_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("scorehouse_api_url", "http://small")
    monkeypatch.setenv("SCOREHOUSE_TOKEN", "")
    assert of_clients() == of_servers() == {"data_dir": ".scorehouse", "api_url": "http://small", "token": ""}
