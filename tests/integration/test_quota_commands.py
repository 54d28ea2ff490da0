"""The operator's commands about quotas, which work on the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cli.main import run
from settings import get_settings

Command = Callable[..., Any]


@pytest.fixture
def command(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs a command that must succeed, and returns what it wrote as JSON."""
    monkeypatch.setenv("SCOREHOUSE_DATABASE_URL", database_url)
    get_settings.cache_clear()

    def one(*arguments: str) -> Any:
        assert run(["quota", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    yield one
    get_settings.cache_clear()


def test_what_is_set_is_shown_and_listed(command: Command) -> None:
    assert command("list") == {"tenants": []}
    assert command("show", "acme")["rows_per_day"]["limit"] == 100_000_000
    document = command("set", "acme", "--rows-per-day", "1_000_000", "--jobs-open", "unlimited")
    assert (document["rows_per_day"]["limit"], document["jobs_open"]["limit"]) == (1_000_000, None)
    assert command("show", "acme") | {"rows_per_day": None} == document | {"rows_per_day": None}
    command("set", "acme", "--burst", "5")
    [listed] = command("list")["tenants"]
    assert (listed["tenant"], listed["limits"]) == ("acme", {"rows_per_day": 1_000_000, "jobs_open": None, "burst": 5})


def test_a_default_comes_back(command: Command) -> None:
    command("set", "acme", "--jobs-open", "0")
    assert command("show", "acme")["differs"] == ["jobs_open"]
    assert command("set", "acme", "--jobs-open", "default")["jobs_open"]["limit"] == 100_000
    assert command("list") == {"tenants": []}


def test_a_recount_says_what_is_there(command: Command) -> None:
    assert command("recount", "acme")["bytes_stored"]["used"] == 0


def test_people_get_tables(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command("set", "acme", "--requests-per-second", "50")
    assert run(["quota", "show", "acme"]) == 0
    shown = capsys.readouterr().out
    assert "tenant acme" in shown
    assert "up to 2,000 at once" in shown
    assert run(["quota", "list"]) == 0
    assert "requests per second 50" in capsys.readouterr().out
