"""Quotas: what each tenant may use where that differs from the defaults, and what it uses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('tenant_quota',
    sa.Column('tenant', sa.Text(), nullable=False),
    sa.Column('limits', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('changed_by', sa.Text(), nullable=False),
    sa.Column('changed_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('tenant', name=op.f('tenant_quota_pkey'))
    )
    op.create_table('tenant_usage',
    sa.Column('tenant', sa.Text(), nullable=False),
    sa.Column('jobs_open', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('bytes_stored', sa.BigInteger(), server_default='0', nullable=False),
    sa.PrimaryKeyConstraint('tenant', name=op.f('tenant_usage_pkey')),
    postgresql_with={'fillfactor': '20'}
    )
    op.create_table('tenant_day',
    sa.Column('tenant', sa.Text(), nullable=False),
    sa.Column('day', sa.Date(), nullable=False),
    sa.Column('rows', sa.BigInteger(), server_default='0', nullable=False),
    sa.PrimaryKeyConstraint('tenant', 'day', name=op.f('tenant_day_pkey')),
    postgresql_with={'fillfactor': '20'}
    )
    op.create_table('tenant_upload',
    sa.Column('id', sa.UUID(), nullable=False),
    sa.Column('tenant', sa.Text(), nullable=False),
    sa.Column('lease_until', sa.TIMESTAMP(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('tenant_upload_pkey'))
    )
    op.create_index(op.f('tenant_upload_tenant_idx'), 'tenant_upload', ['tenant'], unique=False)
    op.create_table('tenant_rate',
    sa.Column('tenant', sa.Text(), nullable=False),
    sa.Column('tokens', sa.Double(), nullable=False),
    sa.Column('granted', sa.Integer(), nullable=False),
    sa.Column('at', sa.TIMESTAMP(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('tenant', name=op.f('tenant_rate_pkey')),
    prefixes=['UNLOGGED'],
    postgresql_with={'fillfactor': '20'}
    )
    # Jobs of before stay NULL: they do not count. Artefacts do.
    op.add_column('job', sa.Column('bytes_stored', sa.BigInteger(), nullable=True))
    op.add_column('model_version', sa.Column('bytes_stored', sa.BigInteger(), nullable=True))
    op.execute(
        'INSERT INTO tenant_usage (tenant, bytes_stored) '
        'SELECT tenant, sum(size) FROM model JOIN model_version ON model_version.model_id = model.id GROUP BY tenant'
    )


def downgrade() -> None:
    op.drop_column('model_version', 'bytes_stored')
    op.drop_column('job', 'bytes_stored')
    op.drop_table('tenant_rate')
    op.drop_table('tenant_upload')
    op.drop_table('tenant_day')
    op.drop_table('tenant_usage')
    op.drop_table('tenant_quota')
