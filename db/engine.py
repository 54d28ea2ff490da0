"""Connections to Postgres: the engine of a process, and transactions whose driver errors are domain errors.

A session acts as one of two roles, whoever logged in (docs/explanation/tenants.md). As TENANT_ROLE it sees the rows of the
tenant that its transaction names, and without a name none: row-level security is the second lock behind the tenant in each
query. As SYSTEM_ROLE it sees all: workers serve every tenant. Neither owns a table.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import psycopg2
import psycopg2.extensions
import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.silence import Cursor, Session
from errors import InvalidInput, Unavailable

# A peer that vanished without a word is noticed after about 5 + 3 * 2 seconds, also while we wait for an answer; one that is
# there and does not answer, by `db.silence`.
_NETWORK = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "connection_factory": Session,
    "cursor_factory": Cursor,
}
# The same for the server: until it notices, a client that vanished holds its locks.
_NETWORK_OF_SERVER = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=15000"
)

T = TypeVar("T")

_DRIVERS = {"postgresql", "postgres", "postgresql+psycopg2"}


_TRUSTED_SECONDS = 1.0

TENANT_ROLE = "scorehouse_tenant"
SYSTEM_ROLE = "scorehouse_system"


def create_engine(
    url: str,
    *,
    name: str,
    role: str | None = SYSTEM_ROLE,
    pool_size: int = 5,
    statement_timeout: float = 60.0,
    idle_timeout: float = 120.0,
) -> Engine:
    """An engine whose sessions use UTC, READ COMMITTED and bounded statements.

    Args:
        url: SQLAlchemy URL; a bare `postgresql://` means psycopg2.
        name: `application_name`, to be seen in pg_stat_activity.
        role: what sessions act as; None: as the user of the URL, the owner of the tables.
        statement_timeout: seconds after which the server cancels a statement.
        idle_timeout: seconds after which the server ends a session that holds a transaction open and does nothing.

    Raises:
        InvalidInput: the URL cannot be one of Postgres; it is not repeated, since it may hold a password.
    """
    parsed = _parsed(url)
    options = (
        f"-c timezone=UTC -c statement_timeout={int(statement_timeout * 1000)} "
        f"-c idle_in_transaction_session_timeout={int(idle_timeout * 1000)} "
        f"-c default_transaction_isolation=read\\ committed {_NETWORK_OF_SERVER}"
    )
    if role is not None:
        options += f" -c role={role}"
    engine = sa.create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=5,
        # A statement that fails is logged; the records, keys and labels that it carried are not.
        hide_parameters=True,
        connect_args={**_NETWORK, "options": options, "application_name": name},
    )
    _ask_those_that_rested(engine)
    _name_the_tenant_at_once(engine)
    return engine


def _ask_those_that_rested(engine: Engine) -> None:
    """Ask a connection whether it still works before it is used again, unless it was used a moment ago: to ask each time
    (`pool_pre_ping`) is a round trip more for each transaction.
    """

    @sa.event.listens_for(engine, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info["rests_since"] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def ask(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get("rests_since")
        if since is None or time.monotonic() - since < _TRUSTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except psycopg2.Error as exc:
            raise InvalidatePoolError from exc  # the pool makes another one, and asks none of the old ones


def _name_the_tenant_at_once(engine: Engine) -> None:
    """Let a statement of `read` say whose rows it sees, in the same round trip: both are one transaction for the server."""

    @sa.event.listens_for(engine, "before_cursor_execute", retval=True)
    def name(
        connection: Connection, _cursor: Any, text: str, parameters: Any, _context: Any, _many: bool
    ) -> tuple[str, Any]:
        tenant = connection.get_execution_options().get("scorehouse_reading_for")
        if tenant is None:
            return text, parameters
        return _NAME_TENANT + text, {**parameters, "scorehouse_tenant": tenant}


def _parsed(url: str) -> sa.URL:
    wrong = "the database's URL (SCOREHOUSE_DATABASE_URL) must be like postgresql://USER@HOST:5432/NAME; mend it"
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidInput(wrong) from None
    if parsed.drivername not in _DRIVERS:
        raise InvalidInput(wrong)
    return parsed.set(drivername="postgresql+psycopg2")


def for_tenant(engine: Engine, tenant: str) -> Engine:
    """The same connections, for transactions that see the rows of one tenant; of an engine of TENANT_ROLE."""
    return engine.execution_options(scorehouse_tenant=tenant)


def for_system(engine: Engine) -> Engine:
    """The same connections, for transactions that see all rows."""
    return engine.execution_options(scorehouse_tenant=None, scorehouse_system=True)


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction: committed when the block ends, rolled back when it raises.

    Raises:
        Unavailable: the server cannot be reached, is shutting down, has no connection free, or its disk is full.
            When that happens at COMMIT the outcome is unknown: read before you assume.
    """
    with _domain_errors(), _connected(engine, {}) as connection, connection.get_transaction() or connection.begin():
        yield connection


@contextmanager
def contended_transaction(engine: Engine, committed: Callable[[], None] = lambda: None) -> Iterator[Connection]:
    """A transaction whose locks others wait for: they are free before its COMMIT is flushed to disk, not after.

    `committed` is called when others can see what it wrote, and before that is durable. It is durable all the same when the block has ended: a second, empty transaction of the same session is flushed, and
    with it all that was written before. Flushes of many sessions are one; flushes under one lock would each take their turn.
    A server that crashed in between has ended the session, so that this raises.

    Raises:
        Unavailable: as `transaction`.
    """
    with _domain_errors(), _connected(engine, {"synchronous_commit": "off"}) as connection:
        with connection.get_transaction() or connection.begin():
            yield connection
        committed()
        with _autocommit(connection):
            connection.execute(_FLUSH)


def at_once(engine: Engine, statement: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[sa.Row[Any]]:
    """The rows of one statement that is a transaction of its own, in one round trip; for engines that name no tenant.

    Raises:
        Unavailable: as `transaction`.
    """
    assert engine.get_execution_options().keys().isdisjoint(("scorehouse_tenant", "scorehouse_system"))
    with _domain_errors(), engine.connect() as connection, _autocommit(connection):
        return connection.execute(statement, parameters).all()


def read(engine: Engine, ask: Callable[[Connection], T]) -> T:
    """What `ask` returns, whose statements are a transaction and a round trip each, and change nothing.

    Raises:
        Unavailable: as `transaction`.
    """
    with _domain_errors():
        return _again_if_gone(lambda: _read(engine, ask))


def _read(engine: Engine, ask: Callable[[Connection], T]) -> T:
    with engine.connect() as connection, _autocommit(connection):
        options = connection.get_execution_options()
        assert not options.get("scorehouse_system"), "that is said for a transaction"
        return ask(connection.execution_options(scorehouse_reading_for=options.get("scorehouse_tenant")))


@contextmanager
def _autocommit(connection: Connection) -> Iterator[None]:
    """Each statement is a transaction. Said to the driver itself, because SQLAlchemy's isolation level of that name costs a
    round trip when it ends.
    """
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, psycopg2.extensions.connection)
    driver.autocommit = True
    try:
        yield
    finally:
        if not driver.closed:
            driver.autocommit = False


def _connected(engine: Engine, settings: Mapping[str, str]) -> Connection:
    """A connection that acts as the engine says, with settings for its first transaction, which may have begun.

    What is said first shows whether the server is still there: if not, nothing was done yet, and another connection will do.
    """
    return _again_if_gone(lambda: _acting(engine, settings))


def _again_if_gone(do: Callable[[], T]) -> T:
    """What `do` returns, which changes nothing: it is done once more, over another connection, if the server was gone."""
    try:
        return do()
    except DBAPIError as exc:
        if not exc.connection_invalidated:
            raise
        return do()


def _acting(engine: Engine, settings: Mapping[str, str]) -> Connection:
    connection = engine.connect()
    options = connection.get_execution_options()
    if options.get("scorehouse_tenant") is not None:
        settings = {"scorehouse.tenant": options["scorehouse_tenant"], **settings}
    try:
        if settings:
            parameters = {f"name_{place}": name for place, name in enumerate(settings)}
            parameters |= {f"value_{place}": value for place, value in enumerate(settings.values())}
            connection.execute(_setting(len(settings)), parameters)
        if options.get("scorehouse_system"):
            connection.execute(_ACT_AS_SYSTEM)
    except BaseException:
        connection.close()
        raise
    return connection


@cache
def _setting(count: int) -> sa.TextClause:
    """Of the transaction, all in one round trip."""
    return sa.text("SELECT " + ", ".join(f"set_config(:name_{place}, :value_{place}, true)" for place in range(count)))


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


@contextmanager
def elevated(connection: Connection) -> Iterator[None]:
    """Act as SYSTEM_ROLE for what Postgres cannot do under row-level security: COPY into a table, and to look up in an
    index by an operator that is not leak-proof. For callers who know whose rows they touch.
    """
    if connection.get_execution_options().get("scorehouse_tenant") is None:
        yield
        return
    connection.execute(_ACT_AS_SYSTEM)
    yield
    connection.execute(_ACT_AS_TENANT)  # when the block raises, the transaction is over


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


_NAME_TENANT = "SELECT set_config('scorehouse.tenant', %(scorehouse_tenant)s, true); "
_ACT_AS_SYSTEM = sa.text(f"SET LOCAL ROLE {SYSTEM_ROLE}")
_ACT_AS_TENANT = sa.text(f"SET LOCAL ROLE {TENANT_ROLE}")
_FLUSH = sa.text("SELECT pg_logical_emit_message(true, 'scorehouse', '')")

# connection lost; rolled back for another (deadlock); disk full, out of memory or connections; operator; I/O error
_OUTAGE_STATES = ("08", "40", "53", "57", "58")
_IDLE_IN_TRANSACTION = "25P03"
_LOCK_TIMEOUT = "55P03"


def is_outage(error: psycopg2.Error) -> bool:
    """Whether the server could not serve, as opposed to a statement that is wrong."""
    if error.pgcode is None:  # no answer from a server
        return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError | psycopg2.InternalError)
    return error.pgcode.startswith(_OUTAGE_STATES) or error.pgcode in {_IDLE_IN_TRANSACTION, _LOCK_TIMEOUT}


def _unavailable(error: BaseException | None) -> Unavailable:
    lines = str(error).strip().splitlines()
    told = lines[0] if lines else "no answer"
    if any(role in told for role in (TENANT_ROLE, SYSTEM_ROLE)):
        return Unavailable(f"the database has no roles for this release yet ({told}): run `scorehouse db upgrade`")
    return Unavailable(f"the database cannot serve this now ({told}); try again shortly")
