"""Labels have no id and are found by their age; audits' documents keep their order; failed notifications are tried again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint('label_pkey', 'label')
    op.drop_constraint('label_model_id_fkey', 'label')
    op.drop_column('label', 'id')
    op.create_index('label_received_at_idx', 'label', ['received_at'], unique=False, postgresql_using='brin', postgresql_with={'autosummarize': 'on', 'pages_per_range': '32'})
    op.alter_column('audit_run', 'document', type_=postgresql.JSON(astext_type=sa.Text()))
    op.add_column('alert_event', sa.Column('attempts', sa.SmallInteger(), server_default='0', nullable=False))
    op.add_column('alert_event', sa.Column('next_attempt_at', sa.TIMESTAMP(timezone=True), nullable=True))
    op.drop_index('alert_event_undelivered_idx', 'alert_event')
    op.create_index('alert_event_due_idx', 'alert_event', ['id'], unique=False, postgresql_where=sa.text('deliveries IS NULL OR next_attempt_at IS NOT NULL'))


def downgrade() -> None:
    op.drop_index('alert_event_due_idx', 'alert_event')
    op.create_index('alert_event_undelivered_idx', 'alert_event', ['id'], unique=False, postgresql_where=sa.text('deliveries IS NULL'))
    op.drop_column('alert_event', 'next_attempt_at')
    op.drop_column('alert_event', 'attempts')
    op.alter_column('audit_run', 'document', type_=postgresql.JSONB(astext_type=sa.Text()), postgresql_using='document::jsonb')
    op.drop_index('label_received_at_idx', 'label')
    op.add_column('label', sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False))
    op.create_foreign_key('label_model_id_fkey', 'label', 'model', ['model_id'], ['id'])
    op.create_primary_key('label_pkey', 'label', ['id'])
