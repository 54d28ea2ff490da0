"""Retraining: how each model is retrained, and every run with its figures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('training_policy',
    sa.Column('model_id', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('promotion', sa.Text(), server_default='manual', nullable=False),
    sa.Column('every_days', sa.Integer(), nullable=True),
    sa.Column('on_alert', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('min_labelled_rows', sa.Integer(), server_default='1000', nullable=False),
    sa.Column('max_rows', sa.Integer(), server_default='200000', nullable=False),
    sa.Column('max_age_days', sa.Integer(), server_default='365', nullable=False),
    sa.Column('recipe', sa.Text(), nullable=True),
    sa.Column('scheduled_since', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.CheckConstraint("promotion IN ('manual', 'auto-if-better')", name=op.f('training_policy_promotion_check')),
    sa.CheckConstraint('every_days BETWEEN 1 AND 366 AND min_labelled_rows > 0 AND max_rows > 0 AND max_age_days > 0', name=op.f('training_policy_bounds_check')),
    sa.ForeignKeyConstraint(['model_id'], ['model.id'], name=op.f('training_policy_model_id_fkey')),
    sa.PrimaryKeyConstraint('model_id', name=op.f('training_policy_pkey'))
    )
    op.create_table('training_run',
    sa.Column('id', sa.UUID(), nullable=False),
    sa.Column('model_id', sa.Integer(), nullable=False),
    sa.Column('trigger_kind', sa.Text(), nullable=False),
    sa.Column('trigger_key', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), server_default='queued', nullable=False),
    sa.Column('champion_version_id', sa.Integer(), nullable=True),
    sa.Column('challenger_version_id', sa.Integer(), nullable=True),
    sa.Column('document', postgresql.JSON(none_as_null=True, astext_type=sa.Text()), nullable=True),
    sa.Column('attempts', sa.SmallInteger(), server_default='0', nullable=False),
    sa.Column('lease_until', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('by', sa.Text(), nullable=False),
    sa.Column('created_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('started_at', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('finished_at', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'skipped')", name=op.f('training_run_state_check')),
    sa.CheckConstraint("trigger_kind IN ('hand', 'schedule', 'alert')", name=op.f('training_run_trigger_kind_check')),
    sa.ForeignKeyConstraint(['champion_version_id'], ['model_version.id'], name=op.f('training_run_champion_version_id_fkey')),
    sa.ForeignKeyConstraint(['challenger_version_id'], ['model_version.id'], name=op.f('training_run_challenger_version_id_fkey')),
    sa.ForeignKeyConstraint(['model_id'], ['model.id'], name=op.f('training_run_model_id_fkey')),
    sa.PrimaryKeyConstraint('id', name=op.f('training_run_pkey')),
    sa.UniqueConstraint('model_id', 'trigger_kind', 'trigger_key', name='training_run_once_key')
    )
    op.create_index('training_run_due_idx', 'training_run', ['id'], unique=False, postgresql_where=sa.text("state IN ('queued', 'running')"))
    op.create_index('training_run_latest_idx', 'training_run', ['model_id', 'id'], unique=False)


def downgrade() -> None:
    op.drop_table('training_run')
    op.drop_table('training_policy')
