"""What is known of a version's compiled form. The release before neither writes nor reads it, and scores by the original."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('model_version', sa.Column('compiled', JSONB, nullable=True))


def downgrade() -> None:
    op.drop_column('model_version', 'compiled')
