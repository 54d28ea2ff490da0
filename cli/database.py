"""Postgres itself, for commands of whoever runs the installation, and who that is."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from errors import Unavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from settings import Settings


def is_known(settings: Settings) -> bool:
    """Whether the settings or a running stack name a database."""
    return bool(settings.database_url or settings.running_stack().get("database_url"))


def is_asked(settings: Settings, url: str | None) -> bool:
    """Whether a command of both asks the database, and not an API."""
    return url is None and (is_known(settings) or settings.api_url is None)


@contextmanager
def connected(settings: Settings) -> Iterator[Connection]:
    """One transaction.

    Raises:
        Unavailable: no database is known, it does not answer, or its schema is of an earlier release.
        InvalidInput: its URL cannot be one.
    """
    from sqlalchemy.exc import ProgrammingError  # noqa: PLC0415  # see cli.connection

    from db.engine import create_engine, transaction  # noqa: PLC0415  # as above

    try:
        engine = create_engine(settings.resolved_database_url(), name="scorehouse-cli", pool_size=1)
    except LookupError as exc:
        raise Unavailable(str(exc)) from exc
    try:
        with transaction(engine) as connection:
            yield connection
    except ProgrammingError as exc:
        raise Unavailable("the database has the schema of another release: run `scorehouse db upgrade`") from exc
    finally:
        engine.dispose()


def user() -> str:
    """Who is at the terminal, also behind sudo, and in a container that knows no names."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
