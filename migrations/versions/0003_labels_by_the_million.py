"""Labels have no id and no foreign key, and are found by their age; an audit's document keeps the order it was written in."""

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


def downgrade() -> None:
    op.alter_column('audit_run', 'document', type_=postgresql.JSONB(astext_type=sa.Text()), postgresql_using='document::jsonb')
    op.drop_index('label_received_at_idx', 'label')
    op.add_column('label', sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False))
    op.create_foreign_key('label_model_id_fkey', 'label', 'model', ['model_id'], ['id'])
    op.create_primary_key('label_pkey', 'label', ['id'])
