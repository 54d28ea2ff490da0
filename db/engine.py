"""Connections to Postgres: the engine of a process, and transactions whose driver errors are domain errors."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg2
import psycopg2.extensions
import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from errors import Unavailable

# A peer that vanished without a word is noticed after about 5 + 3 * 2 seconds, also while we wait for an answer.
_NETWORK = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


def create_engine(
    url: str, *, name: str, pool_size: int = 5, statement_timeout: float = 60.0, idle_timeout: float = 120.0
) -> Engine:
    """An engine whose sessions use UTC, READ COMMITTED and bounded statements.

    Args:
        url: SQLAlchemy URL; a bare `postgresql://` means psycopg2.
        name: `application_name`, to be seen in pg_stat_activity.
        statement_timeout: seconds after which the server cancels a statement.
        idle_timeout: seconds after which the server ends a session that holds a transaction open and does nothing.
    """
    parsed = sa.make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg2")
    options = (
        f"-c timezone=UTC -c statement_timeout={int(statement_timeout * 1000)} "
        f"-c idle_in_transaction_session_timeout={int(idle_timeout * 1000)} "
        "-c default_transaction_isolation=read\\ committed"
    )
    return sa.create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=5,
        pool_pre_ping=True,
        connect_args={**_NETWORK, "options": options, "application_name": name},
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction: committed when the block ends, rolled back when it raises.

    Raises:
        Unavailable: the server cannot be reached, is shutting down, has no connection free, or its disk is full.
            When that happens at COMMIT the outcome is unknown: read before you assume.
    """
    with _domain_errors(), engine.begin() as connection:
        yield connection


@contextmanager
def contended_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction whose locks others wait for: they are free before its COMMIT is flushed to disk, not after.

    It is durable all the same when the block has ended: a second, empty transaction of the same session is flushed, and
    with it all that was written before. Flushes of many sessions are one; flushes under one lock would each take their turn.
    A server that crashed in between has ended the session, so that this raises.

    Raises:
        Unavailable: as `transaction`.
    """
    with _domain_errors(), engine.connect() as connection:
        with connection.begin():
            connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
            yield connection
        with connection.begin():
            connection.execute(sa.text("SELECT pg_logical_emit_message(true, 'scorehouse', '')"))


@contextmanager
def _domain_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as exc:
        raise Unavailable("all database connections of this process are busy; try again shortly") from exc
    except DBAPIError as exc:
        if exc.connection_invalidated or (isinstance(exc.orig, psycopg2.Error) and is_outage(exc.orig)):
            raise _unavailable(exc.orig) from exc
        raise
    except psycopg2.Error as exc:  # of COPY, which goes past SQLAlchemy
        if is_outage(exc):
            raise _unavailable(exc) from exc
        raise


def copy(connection: Connection, table: str, columns: Sequence[str], stream: bytes) -> None:
    """Append rows from a binary COPY stream, see `db.binary_copy`."""
    cursor_of(connection).copy_expert(
        f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)", io.BytesIO(stream)
    )


def cursor_of(connection: Connection) -> psycopg2.extensions.cursor:
    """The driver's cursor in the transaction of `connection`, for COPY."""
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, psycopg2.extensions.connection)
    return raw.cursor()


# connection lost; rolled back for another (deadlock); disk full, out of memory or connections; operator; I/O error
_OUTAGE_STATES = ("08", "40", "53", "57", "58")
_IDLE_IN_TRANSACTION = "25P03"


def is_outage(error: psycopg2.Error) -> bool:
    """Whether the server could not serve, as opposed to a statement that is wrong."""
    if error.pgcode is None:  # no answer from a server
        return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError | psycopg2.InternalError)
    return error.pgcode.startswith(_OUTAGE_STATES) or error.pgcode == _IDLE_IN_TRANSACTION


def _unavailable(error: BaseException | None) -> Unavailable:
    lines = str(error).strip().splitlines()
    return Unavailable(f"the database cannot serve this now ({lines[0] if lines else 'no answer'}); try again shortly")
