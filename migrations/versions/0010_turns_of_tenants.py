"""Turns between tenants: a chunk bears its tenant, and the claim's indexes have it in front of the priority.

The release before does not name the tenant when it adds a chunk: a trigger does, for as long as it may run. It claims by the
new index too, and sorts what it finds there.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None

TURN = ['lane', 'tenant', 'priority', 'number', 'job_id']
QUEUED = sa.text("state = 'queued'")
SUSPECT = sa.text("state = 'queued' AND crashes > 0")

NAME_THE_TENANT = """
    CREATE FUNCTION scorehouse_chunk_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        SELECT tenant INTO NEW.tenant FROM job WHERE id = NEW.job_id;
        RETURN NEW;
    END $$
"""


def upgrade() -> None:
    op.add_column('chunk', sa.Column('tenant', sa.Text(), nullable=True))
    op.execute(NAME_THE_TENANT)
    op.execute("CREATE TRIGGER chunk_tenant BEFORE INSERT ON chunk FOR EACH ROW WHEN (NEW.tenant IS NULL)"
               " EXECUTE FUNCTION scorehouse_chunk_tenant()")
    # What has ended stays as it is: nobody claims it, and it may be most of the table.
    op.execute("UPDATE chunk SET tenant = job.tenant FROM job"
               " WHERE job.id = chunk.job_id AND chunk.state IN ('queued', 'running')")
    op.create_check_constraint('queued_for_a_tenant', 'chunk', "state <> 'queued' OR tenant IS NOT NULL")
    op.create_index('chunk_turn_idx', 'chunk', TURN, unique=False, postgresql_where=QUEUED)
    op.create_index('chunk_suspect_turn_idx', 'chunk', TURN, unique=False, postgresql_where=SUSPECT)
    op.drop_index('chunk_claim_idx', table_name='chunk')
    op.drop_index('chunk_suspect_idx', table_name='chunk')


def downgrade() -> None:
    op.create_index('chunk_suspect_idx', 'chunk', ['lane', 'job_id'], unique=False, postgresql_where=SUSPECT)
    op.create_index('chunk_claim_idx', 'chunk', ['lane', 'priority', 'number', 'job_id'], unique=False, postgresql_where=QUEUED)
    op.drop_index('chunk_suspect_turn_idx', table_name='chunk')
    op.drop_index('chunk_turn_idx', table_name='chunk')
    op.drop_constraint(op.f('chunk_queued_for_a_tenant_check'), 'chunk')
    op.execute("DROP TRIGGER chunk_tenant ON chunk")
    op.execute("DROP FUNCTION scorehouse_chunk_tenant()")
    op.drop_column('chunk', 'tenant')
