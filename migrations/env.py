"""How Alembic connects: one migration at a time, and none that queues behind a long lock with everybody behind it."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import context

from db.engine import create_engine
from db.tables import metadata
from settings import get_settings

# Any constant will do, as long as no other advisory lock uses it.
_ADVISORY_LOCK = 0x5C0E
_ASK_SECONDS = 0.2


def _is_ours(_object: object, name: str | None, kind: str, _reflected: bool, _compare_to: object) -> bool:
    """Leave out the daily partitions: they are made as days pass, not by migrations."""
    return not (kind == "table" and name is not None and name.startswith("prediction_block_"))


def _wait_for_turn(connection: sa.Connection) -> None:
    """Take the lock, asking again and again: an index that is made while others write waits for all transactions that began
    before it, so for one that waits for the lock too.
    """
    while not connection.execute(sa.text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _ADVISORY_LOCK}).scalar_one():
        connection.commit()
        time.sleep(_ASK_SECONDS)


url = context.config.attributes.get("url") or get_settings().resolved_database_owner_url()
engine = create_engine(url, name="scorehouse-migrate", role=None, statement_timeout=3600)
try:
    with engine.connect() as connection:
        _wait_for_turn(connection)
        connection.execute(sa.text("SET lock_timeout = '5s'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=metadata,
            include_object=_is_ours,
            compare_type=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
finally:
    engine.dispose()  # ends the session, and with it the lock, also when a migration failed
