"""Indexes for lists and samples among millions of jobs. They are made while others write; the release before ignores them."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None

INDEXES: Sequence[tuple[str, str, list[str], str | None]] = (
    ('job_version_idx', 'job', ['version_id', 'id'], None),
    ('job_unusual_idx', 'job', ['tenant', 'state', 'id'], "state IN ('completed_with_errors', 'failed', 'canceled')"),
    ('chunk_done_idx', 'chunk', ['version_id', 'finished_at'], "state = 'done'"),
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # It waits for the transactions that are under way, and nobody waits behind it.
        op.execute("SET lock_timeout = 0")
        for name, table, columns, where in INDEXES:
            # What an attempt left that was cut off is there and of no use.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            condition = None if where is None else sa.text(where)
            op.create_index(name, table, columns, postgresql_where=condition, postgresql_concurrently=True)
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    for name, table, _, _ in INDEXES:
        op.drop_index(name, table)
