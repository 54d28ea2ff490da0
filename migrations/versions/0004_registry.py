"""What a registration states about a version: its lineage, an edited signature, whether it is the candidate."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('model_version', sa.Column('mismatch_allowed', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('model_version', sa.Column('wants_candidate', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('model_version', sa.Column('edited_signature', postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column('model_version', sa.Column('declared', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False))


def downgrade() -> None:
    for name in ('declared', 'edited_signature', 'wants_candidate', 'mismatch_allowed'):
        op.drop_column('model_version', name)
