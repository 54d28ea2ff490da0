"""Deployments go live in steps, which workers take; a model has two slots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

_NOW = sa.text('now()')
_COLUMNS = ('slot', 'gate', 'checks', 'owner', 'lease_until', 'attempts', 'moved_at')


def upgrade() -> None:
    op.add_column('model', sa.Column('live_slot', sa.Text(), server_default='blue', nullable=False))
    op.create_check_constraint(op.f('model_live_slot_check'), 'model', "live_slot IN ('blue', 'green')")
    op.add_column('deployment', sa.Column('slot', sa.Text(), nullable=True))
    op.create_check_constraint(op.f('deployment_slot_check'), 'deployment', "slot IN ('blue', 'green')")
    op.add_column('deployment', sa.Column('gate', postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column('deployment', sa.Column('checks', postgresql.JSON(astext_type=sa.Text()), server_default='{}', nullable=False))
    op.add_column('deployment', sa.Column('owner', sa.Text(), nullable=True))
    op.add_column('deployment', sa.Column('lease_until', sa.TIMESTAMP(timezone=True), nullable=True))
    op.add_column('deployment', sa.Column('attempts', sa.SmallInteger(), server_default='0', nullable=False))
    op.add_column('deployment', sa.Column('moved_at', sa.TIMESTAMP(timezone=True), server_default=_NOW, nullable=False))
    op.create_index('deployment_open_key', 'deployment', ['model_id'], unique=True, postgresql_where=sa.text("state IN ('warming', 'validating')"))
    op.create_table('deployment_event',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('deployment_id', sa.UUID(), nullable=False),
    sa.Column('at', sa.TIMESTAMP(timezone=True), server_default=_NOW, nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('message', sa.Text(), nullable=False),
    sa.Column('by', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['deployment_id'], ['deployment.id'], name=op.f('deployment_event_deployment_id_fkey')),
    sa.PrimaryKeyConstraint('id', name=op.f('deployment_event_pkey'))
    )
    op.create_index('deployment_event_deployment_id_id_idx', 'deployment_event', ['deployment_id', 'id'], unique=False)
    op.add_column('worker_heartbeat', sa.Column('deployments', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False))


def downgrade() -> None:
    op.drop_column('worker_heartbeat', 'deployments')
    op.drop_table('deployment_event')
    op.drop_index('deployment_open_key', 'deployment')
    for name in reversed(_COLUMNS):
        op.drop_column('deployment', name)
    op.drop_column('model', 'live_slot')
