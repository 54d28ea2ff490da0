"""Where a client finds the API, and with which token; every other setting is in `settings`.

A command that only asks the API reads these three without pydantic-settings, which takes a fifth of the time that the command
needs to start; the names, the places and their order are those of `settings`, which a test compares.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# Where container engines show secrets: a file `scorehouse_database_url` there is SCOREHOUSE_DATABASE_URL.
SECRETS = Path("/run/secrets")
PREFIX = "SCOREHOUSE_"
ENV_FILE = ".env"
DATA_DIR = Path(".scorehouse")


@dataclass(frozen=True)
class ClientSettings:
    data_dir: Path = DATA_DIR
    api_url: str | None = None
    token: str | None = None


def read() -> ClientSettings:
    """From the environment, else `.env`, else the secrets of a container."""
    places = {f"{PREFIX}{name}".lower(): name for name in ("data_dir", "api_url", "token")}
    found: dict[str, str] = {}
    for source in _sources(places):
        found = {places[key]: value for key, value in source.items() if key in places} | found
    data_dir = found.get("data_dir")
    return ClientSettings(DATA_DIR if data_dir is None else Path(data_dir), found.get("api_url"), found.get("token"))


def stack_file(data_dir: Path) -> Path:
    """What `scorehouse up` writes: URLs, ports and pids of the running stack."""
    return data_dir / "stack.json"


def running_stack(data_dir: Path) -> dict[str, str | int]:
    """The stack file's content, empty when nothing was started from this data folder."""
    try:
        content: dict[str, str | int] = json.loads(stack_file(data_dir).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content


def _sources(wanted: Collection[str]) -> Iterator[Mapping[str, str]]:
    yield {name.lower(): value for name, value in os.environ.items()}
    if Path(ENV_FILE).is_file():
        from dotenv import dotenv_values  # noqa: PLC0415  # rarely needed

        yield {name.lower(): value for name, value in dotenv_values(ENV_FILE).items() if value is not None}
    if SECRETS.is_dir():
        # Of the others some may not be ours to read.
        files = [file for file in SECRETS.iterdir() if file.name.lower() in wanted and file.is_file()]
        yield {file.name.lower(): file.read_text().strip() for file in files}
