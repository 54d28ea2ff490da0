"""What all tests share: real servers for the session, a fresh migrated database per test, and one whole stack."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine
from xdist.scheduler import LoadScopeScheduling

from db.engine import create_engine
from embedded.postgres import Postgres
from embedded.valkey import Valkey
from migrations import upgrade

# What the machine sets must not reach the code under test.
for _name in [name for name in os.environ if name.startswith("SCOREHOUSE_")]:
    del os.environ[_name]


# What shares a stack stays together when the tests run in several processes.
_TOGETHER = {"acceptance", "faults"}


class _Scheduling(LoadScopeScheduling):
    """Files go to one process each, and folders that share a stack do."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.split("::", maxsplit=1)[0])
        return file.parent.name if file.parent.name in _TOGETHER else str(file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    return _Scheduling(config, log)


@dataclass(frozen=True)
class Servers:
    """The servers of this test session; nothing else uses them."""

    postgres: Postgres
    broker_url: str


# Started in the background of a shell, a process ignores Ctrl-C, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    postgres = Postgres(folder / "postgres", durable=False)
    valkey = Valkey(folder / "valkey")
    postgres.start()
    try:
        with valkey:
            yield Servers(postgres, valkey.url)
    finally:
        postgres.discard()


@pytest.fixture(scope="session")
def template(servers: Servers) -> str:
    """The name of a database that is migrated to the head, to be cloned."""
    _admin(servers, "CREATE DATABASE template_scorehouse")
    upgrade(servers.postgres.url_of("template_scorehouse"))
    return "template_scorehouse"


@pytest.fixture
def database_url(servers: Servers, template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    with _database(servers, f"TEMPLATE {template}") as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(servers: Servers, template: str) -> Iterator[str]:
    """A migrated database for tests that only read."""
    with _database(servers, f"TEMPLATE {template}") as url:
        yield url


@pytest.fixture
def empty_database_url(servers: Servers) -> Iterator[str]:
    """A database without any table."""
    with _database(servers, "") as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url, name="tests")
    yield engine
    engine.dispose()


@pytest.fixture
def owner(database_url: str) -> Iterator[Engine]:
    """As whoever owns the tables: to change them, or to end others' sessions."""
    engine = create_engine(database_url, name="tests", role=None)
    yield engine
    engine.dispose()


@contextmanager
def _database(servers: Servers, options: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    _admin(servers, f"CREATE DATABASE {name} {options}")
    yield servers.postgres.url_of(name)
    _admin(servers, f"DROP DATABASE {name} WITH (FORCE)")


def _admin(servers: Servers, statement: str) -> None:
    engine = sa.create_engine(servers.postgres.admin_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()
