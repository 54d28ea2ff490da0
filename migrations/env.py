"""How Alembic connects: one migration at a time, and none that queues behind a long lock with everybody behind it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from db.engine import create_engine
from db.tables import metadata
from settings import get_settings

# Any constant will do, as long as no other advisory lock uses it.
_ADVISORY_LOCK = 0x5C0E


def _is_ours(_object: object, name: str | None, kind: str, _reflected: bool, _compare_to: object) -> bool:
    """Leave out the daily partitions: they are made as days pass, not by migrations."""
    return not (kind == "table" and name is not None and name.startswith("prediction_block_"))


url = context.config.attributes.get("url") or get_settings().resolved_database_owner_url()
engine = create_engine(url, name="scorehouse-migrate", role=None, statement_timeout=3600)
try:
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        connection.execute(sa.text("SET lock_timeout = '5s'"))
        connection.commit()
        context.configure(connection=connection, target_metadata=metadata, include_object=_is_ours, compare_type=True)
        with context.begin_transaction():
            context.run_migrations()
finally:
    engine.dispose()  # ends the session, and with it the lock, also when a migration failed
