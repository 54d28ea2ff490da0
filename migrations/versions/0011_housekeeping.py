"""Inputs that go before their job, and vacuum settings for the tables whose rows change all the time.

The release before goes on as it did: it neither removes inputs nor asks whether they are there. Storage parameters count
for pages that are written from now on, and for the autovacuum's next look.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None

# The same stand at the tables in `db.tables`, with why; a test compares the two with what the server has.
STORAGE = {
    "job": {"autovacuum_vacuum_scale_factor": "0.02", "autovacuum_vacuum_threshold": "1000",
            "autovacuum_analyze_scale_factor": "0.02"},
    "chunk": {"autovacuum_vacuum_scale_factor": "0.01", "autovacuum_vacuum_threshold": "1000",
              "autovacuum_analyze_scale_factor": "0.02", "toast.autovacuum_vacuum_scale_factor": "0.05"},
    "chunk_profile": {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "1000"},
    "worker_heartbeat": {"fillfactor": "20", "autovacuum_vacuum_scale_factor": "0",
                         "autovacuum_vacuum_threshold": "500"},
    "tenant_usage": {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"},
    "tenant_day": {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"},
    "tenant_rate": {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"},
    "tenant_upload": {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"},
}


def upgrade() -> None:
    op.add_column('job', sa.Column('inputs_removed_at', sa.TIMESTAMP(timezone=True), nullable=True))
    for table, parameters in STORAGE.items():
        op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{name} = {value}' for name, value in parameters.items())})")


def downgrade() -> None:
    for table, parameters in STORAGE.items():
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(parameters)})")
    op.drop_column('job', 'inputs_removed_at')
