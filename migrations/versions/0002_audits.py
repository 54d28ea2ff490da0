"""Profiles, labels, audits, alerts; jobs say what time their rows stand for and where they came from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

_NOW = sa.text('now()')


def _moment(name: str, *, default: bool = False, nullable: bool = True) -> sa.Column:
    if default:
        return sa.Column(name, sa.TIMESTAMP(timezone=True), server_default=_NOW, nullable=False)
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.add_column('job', sa.Column('as_of', sa.TIMESTAMP(timezone=True), nullable=True))
    op.add_column('job', sa.Column('endpoint', sa.Text(), server_default='jobs', nullable=False))
    op.create_index('job_as_of_idx', 'job', ['version_id', 'as_of'], unique=False, postgresql_where=sa.text('as_of IS NOT NULL'))
    op.create_index('prediction_block_scored_at_idx', 'prediction_block', ['scored_at'], unique=False, postgresql_using='brin', postgresql_with={'autosummarize': 'on', 'pages_per_range': '32'})
    op.create_table('reference_profile',
    sa.Column('version_id', sa.Integer(), nullable=False),
    sa.Column('schema', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('schema_digest', sa.Text(), nullable=False),
    sa.Column('profile', sa.LargeBinary(), nullable=False),
    sa.Column('outcomes', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('calibration', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.ForeignKeyConstraint(['version_id'], ['model_version.id'], name=op.f('reference_profile_version_id_fkey')),
    sa.PrimaryKeyConstraint('version_id', name=op.f('reference_profile_pkey'))
    )
    op.create_table('chunk_profile',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('version_id', sa.Integer(), nullable=False),
    sa.Column('job_id', sa.UUID(), nullable=False),
    _moment('at', nullable=False),
    sa.Column('endpoint', sa.Text(), nullable=False),
    sa.Column('rows', sa.Integer(), nullable=False),
    sa.Column('errors', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('seconds', postgresql.ARRAY(sa.Double()), nullable=False),
    sa.Column('schema_digest', sa.Text(), nullable=True),
    sa.Column('profile', sa.LargeBinary(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('chunk_profile_pkey'))
    )
    op.create_index('chunk_profile_job_id_idx', 'chunk_profile', ['job_id'], unique=False)
    op.create_index('chunk_profile_version_id_at_idx', 'chunk_profile', ['version_id', 'at'], unique=False)
    op.create_table('profile_window',
    sa.Column('version_id', sa.Integer(), nullable=False),
    sa.Column('schema_digest', sa.Text(), nullable=False),
    _moment('start', nullable=False),
    sa.Column('rows', sa.BigInteger(), nullable=False),
    sa.Column('profile', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('version_id', 'schema_digest', 'start', name=op.f('profile_window_pkey'))
    )
    op.create_table('scoring_total',
    sa.Column('version_id', sa.Integer(), nullable=False),
    sa.Column('endpoint', sa.Text(), nullable=False),
    sa.Column('rows', sa.BigInteger(), nullable=False),
    sa.Column('errors', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('seconds_sum', sa.Double(), nullable=False),
    sa.Column('seconds_counts', postgresql.ARRAY(sa.BigInteger()), nullable=False),
    sa.PrimaryKeyConstraint('version_id', 'endpoint', name=op.f('scoring_total_pkey'))
    )
    op.create_table('event_total',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('count', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('event_total_pkey'))
    )
    op.create_table('label',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('model_id', sa.Integer(), nullable=False),
    sa.Column('record_key', sa.Text(collation='C'), nullable=True),
    sa.Column('job_id', sa.UUID(), nullable=True),
    sa.Column('row', sa.Integer(), nullable=True),
    sa.Column('label', sa.Text(), nullable=False),
    _moment('observed_at', nullable=False),
    _moment('received_at', default=True),
    sa.CheckConstraint('(record_key IS NULL) = (job_id IS NOT NULL) AND (job_id IS NULL) = (row IS NULL)', name=op.f('label_one_target_check')),
    sa.ForeignKeyConstraint(['model_id'], ['model.id'], name=op.f('label_model_id_fkey')),
    sa.PrimaryKeyConstraint('id', name=op.f('label_pkey'))
    )
    op.create_index('label_record_key_idx', 'label', ['model_id', 'record_key'], unique=True, postgresql_where=sa.text('record_key IS NOT NULL'))
    op.create_index('label_prediction_idx', 'label', ['model_id', 'job_id', 'row'], unique=True, postgresql_where=sa.text('job_id IS NOT NULL'))
    op.create_table('outcome_window',
    sa.Column('version_id', sa.Integer(), nullable=False),
    sa.Column('day', sa.Date(), nullable=False),
    sa.Column('scored', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('labelled', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('outcomes', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('dirty', sa.Boolean(), nullable=False),
    _moment('computed_at'),
    sa.PrimaryKeyConstraint('version_id', 'day', name=op.f('outcome_window_pkey'))
    )
    op.create_index('outcome_window_dirty_idx', 'outcome_window', ['version_id', 'day'], unique=False, postgresql_where=sa.text('dirty'))
    op.create_table('audit_policy',
    sa.Column('model_id', sa.Integer(), nullable=False),
    sa.Column('every_hours', sa.Integer(), server_default='1', nullable=False),
    sa.Column('window_hours', sa.Integer(), server_default='24', nullable=False),
    sa.Column('enabled', sa.Boolean(), server_default=sa.text('true'), nullable=False),
    sa.Column('tolerance', sa.Double(), server_default='0.05', nullable=False),
    sa.Column('horizon_days', sa.Integer(), nullable=True),
    sa.Column('negative_label', sa.Text(), nullable=True),
    _moment('enabled_since'),
    sa.CheckConstraint('every_hours BETWEEN 1 AND 744 AND window_hours BETWEEN 1 AND 8784', name=op.f('audit_policy_hours_check')),
    sa.CheckConstraint('(horizon_days IS NULL) = (negative_label IS NULL)', name=op.f('audit_policy_horizon_check')),
    sa.ForeignKeyConstraint(['model_id'], ['model.id'], name=op.f('audit_policy_model_id_fkey')),
    sa.PrimaryKeyConstraint('model_id', name=op.f('audit_policy_pkey'))
    )
    op.create_table('audit_run',
    sa.Column('id', sa.UUID(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('model_id', sa.Integer(), nullable=False),
    sa.Column('version_id', sa.Integer(), nullable=False),
    _moment('window_start', nullable=False),
    _moment('window_end', nullable=False),
    sa.Column('configuration', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), server_default='queued', nullable=False),
    sa.Column('alerting', sa.Boolean(), nullable=False),
    sa.Column('scheduled', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('attempts', sa.SmallInteger(), server_default='0', nullable=False),
    _moment('lease_until'),
    sa.Column('status', sa.Text(), nullable=True),
    sa.Column('rows', sa.BigInteger(), nullable=True),
    sa.Column('document', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    _moment('created_at', default=True),
    _moment('finished_at'),
    sa.CheckConstraint("kind IN ('drift', 'accuracy', 'domain')", name=op.f('audit_run_kind_check')),
    sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name=op.f('audit_run_state_check')),
    sa.ForeignKeyConstraint(['model_id'], ['model.id'], name=op.f('audit_run_model_id_fkey')),
    sa.ForeignKeyConstraint(['version_id'], ['model_version.id'], name=op.f('audit_run_version_id_fkey')),
    sa.PrimaryKeyConstraint('id', name=op.f('audit_run_pkey')),
    sa.UniqueConstraint('version_id', 'kind', 'window_start', 'window_end', 'configuration', name=op.f('audit_run_once_key'))
    )
    op.create_index('audit_run_due_idx', 'audit_run', ['id'], unique=False, postgresql_where=sa.text("state IN ('queued', 'running')"))
    op.create_index('audit_run_latest_idx', 'audit_run', ['model_id', 'kind', 'window_end'], unique=False)
    op.create_table('audit_result',
    sa.Column('run_id', sa.UUID(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('statistic', sa.Text(), nullable=False),
    sa.Column('value', sa.Double(), nullable=True),
    sa.Column('warn', sa.Double(), nullable=True),
    sa.Column('critical', sa.Double(), nullable=True),
    sa.Column('p_value', sa.Double(), nullable=True),
    sa.Column('significant', sa.Boolean(), nullable=True),
    sa.Column('status', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['audit_run.id'], name=op.f('audit_result_run_id_fkey'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'name', 'statistic', name=op.f('audit_result_pkey'))
    )
    op.create_table('alert',
    sa.Column('id', sa.UUID(), nullable=False),
    sa.Column('model_id', sa.Integer(), nullable=False),
    sa.Column('version_id', sa.Integer(), nullable=False),
    sa.Column('column_name', sa.Text(), nullable=False),
    sa.Column('check', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('severity', sa.Text(), nullable=True),
    sa.Column('value', sa.Double(), nullable=True),
    sa.Column('machine', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    _moment('created_at', default=True),
    _moment('changed_at', default=True),
    sa.ForeignKeyConstraint(['model_id'], ['model.id'], name=op.f('alert_model_id_fkey')),
    sa.ForeignKeyConstraint(['version_id'], ['model_version.id'], name=op.f('alert_version_id_fkey')),
    sa.PrimaryKeyConstraint('id', name=op.f('alert_pkey')),
    sa.UniqueConstraint('version_id', 'column_name', 'check', name=op.f('alert_version_id_column_name_check_key'))
    )
    op.create_table('alert_event',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('alert_id', sa.UUID(), nullable=False),
    _moment('at', default=True),
    sa.Column('from_state', sa.Text(), nullable=False),
    sa.Column('to_state', sa.Text(), nullable=False),
    sa.Column('by', sa.Text(), nullable=False),
    sa.Column('run_id', sa.UUID(), nullable=True),
    sa.Column('document', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('deliveries', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.ForeignKeyConstraint(['alert_id'], ['alert.id'], name=op.f('alert_event_alert_id_fkey'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('alert_event_pkey'))
    )
    op.create_index('alert_event_undelivered_idx', 'alert_event', ['id'], unique=False, postgresql_where=sa.text('deliveries IS NULL'))


def downgrade() -> None:
    for name in (
        'alert_event', 'alert', 'audit_result', 'audit_run', 'audit_policy', 'outcome_window', 'label', 'event_total',
        'scoring_total', 'profile_window', 'chunk_profile', 'reference_profile',
    ):
        op.drop_table(name)
    op.drop_index('prediction_block_scored_at_idx', table_name='prediction_block')
    op.drop_index('job_as_of_idx', table_name='job')
    op.drop_column('job', 'endpoint')
    op.drop_column('job', 'as_of')
