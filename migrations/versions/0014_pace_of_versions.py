"""How long a version takes for a row, by which chunks are cut. The release before neither writes nor reads it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('model_version', sa.Column('seconds_per_row', sa.Double, nullable=True))


def downgrade() -> None:
    op.drop_column('model_version', 'seconds_per_row')
