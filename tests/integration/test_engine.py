"""Transactions turn outages into `Unavailable`, and leave errors of ours as they are."""

from __future__ import annotations

import io
import time

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from db import engine as db_engine
from db.engine import TENANT_ROLE, at_once, contended_transaction, create_engine, for_tenant, read, transaction
from errors import Unavailable


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


def test_a_contended_transaction_is_flushed_when_it_is_over(engine: Engine) -> None:
    with transaction(engine) as connection:
        if connection.execute(sa.text("SHOW synchronous_commit")).scalar_one() == "off":
            database = connection.execute(sa.text("SELECT current_database()")).scalar_one()
            connection.execute(sa.text(f"ALTER DATABASE {database} SET synchronous_commit = on"))
    engine.dispose()
    with contended_transaction(engine) as connection:
        connection.execute(sa.text("INSERT INTO event_total (name, count) VALUES ('contended', 1)"))
        written = connection.execute(sa.text("SELECT pg_current_wal_insert_lsn()")).scalar_one()
    with transaction(engine) as connection:
        flushed = sa.text("SELECT pg_current_wal_flush_lsn() >= CAST(:written AS pg_lsn)")
        assert connection.execute(flushed, {"written": written}).scalar_one()
        assert connection.execute(sa.text("SELECT count FROM event_total WHERE name = 'contended'")).scalar_one() == 1


def test_a_session_that_ends_before_the_flush_is_an_outage(owner: Engine) -> None:
    ended: list[int] = []
    with pytest.raises(Unavailable):
        _end_before_the_flush(owner, ended)
    assert len(ended) == 1


def _end_before_the_flush(engine: Engine, ended: list[int]) -> None:
    with contended_transaction(engine) as connection:
        session = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()

        def end(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if "pg_logical_emit_message" in statement:
                ended.append(session)
                with engine.connect() as other:
                    other.execute(sa.text("SELECT pg_terminate_backend(:session, 5000)"), {"session": session})

        sa.event.listen(connection, "before_cursor_execute", end)


def test_a_session_that_ended_while_it_rested_costs_no_transaction(engine: Engine, owner: Engine) -> None:
    """That of a tenant shows it with what it says first; that of the system is asked if it rested for long."""
    tenant = for_tenant(
        create_engine(engine.url.render_as_string(hide_password=False), name="tests", role=TENANT_ROLE), "default"
    )
    for used, seconds in ((tenant, 0.0), (engine, 1.1)):
        with transaction(used) as connection:
            pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        with transaction(owner) as connection:
            connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        time.sleep(seconds)
        with transaction(used) as connection:
            assert connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one() != pid
    tenant.dispose()


def test_a_statement_at_once_is_committed(engine: Engine) -> None:
    statement = sa.text("INSERT INTO event_total (name, count) VALUES (:name, 1) RETURNING count")
    assert [row.count for row in at_once(engine, statement, {"name": "once"})] == [1]
    with transaction(engine) as connection:
        assert connection.execute(sa.text("SELECT count FROM event_total WHERE name = 'once'")).scalar_one() == 1
        assert not connection.connection.dbapi_connection.autocommit  # the next user of the connection has transactions


def test_a_reading_sees_the_rows_of_its_tenant_and_no_other(engine: Engine, owner: Engine) -> None:
    with transaction(owner) as connection:
        for tenant in ("mine", "theirs"):
            connection.execute(sa.text("INSERT INTO model (tenant, name) VALUES (:tenant, 'read')"), {"tenant": tenant})
    role = create_engine(engine.url.render_as_string(hide_password=False), name="tests", role=TENANT_ROLE, pool_size=1)
    seen = sa.text("SELECT tenant FROM model WHERE name = :name")

    def tenants(used: Engine) -> list[str]:
        return read(used, lambda connection: list(connection.execute(seen, {"name": "read"}).scalars()))

    assert tenants(for_tenant(role, "mine")) == ["mine"]
    assert tenants(for_tenant(role, "theirs")) == ["theirs"]
    assert tenants(role) == [], "the name of the tenant ends with its statement"
    role.dispose()


def test_a_session_that_ended_while_it_rested_costs_no_reading(engine: Engine, owner: Engine) -> None:
    which = sa.text("SELECT pg_backend_pid()")

    def session(connection: sa.Connection) -> int:
        return int(connection.execute(which).scalar_one())

    pid = read(engine, session)
    with transaction(owner) as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    assert read(engine, session) != pid


def test_what_others_may_see_is_told_before_it_is_durable(engine: Engine) -> None:
    seen: list[int] = []

    def look() -> None:
        with transaction(engine) as connection:
            counted = sa.text("SELECT count FROM event_total WHERE name = 'told'")
            seen.append(connection.execute(counted).scalar_one())

    with contended_transaction(engine, look) as connection:
        connection.execute(sa.text("INSERT INTO event_total (name, count) VALUES ('told', 7)"))
        assert seen == []
    assert seen == [7]
