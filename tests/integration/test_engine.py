"""Transactions turn outages into `Unavailable`, and leave errors of ours as they are."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from db import engine as db_engine
from db.engine import transaction
from errors import Unavailable


@pytest.fixture
def owner(database_url: str) -> Iterator[Engine]:
    """Sessions may end each other."""
    engine = db_engine.create_engine(database_url, name="tests", role=None)
    yield engine
    engine.dispose()


def test_a_connection_that_is_cut_is_an_outage_and_the_next_one_works(owner: Engine) -> None:
    with pytest.raises(Unavailable), transaction(owner) as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with transaction(owner) as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar_one() == 1


def test_a_connection_that_is_cut_under_copy_is_an_outage_too(owner: Engine) -> None:
    with pytest.raises(Unavailable):
        _copy_over_a_cut_connection(owner)


def test_a_server_that_is_not_there_is_an_outage() -> None:
    nowhere = db_engine.create_engine("postgresql://nobody@127.0.0.1:1/none", name="tests")
    with pytest.raises(Unavailable, match="try again"), transaction(nowhere):
        pass


def test_a_wrong_statement_is_ours(engine: Engine) -> None:
    with pytest.raises(sa.exc.ProgrammingError), transaction(engine) as connection:
        connection.execute(sa.text("SELECT no_such_column"))


def _copy_over_a_cut_connection(engine: Engine) -> None:
    with transaction(engine) as connection, transaction(engine) as other:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        other.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        db_engine.cursor_of(connection).copy_expert("COPY job TO STDOUT", io.StringIO())
