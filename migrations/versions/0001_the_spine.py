"""Jobs, chunks, predictions, row errors; models, versions, deployments; heartbeats, periodic runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('model',
    sa.Column('id', sa.Integer(), sa.Identity(always=False), nullable=False),
    sa.Column('tenant', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('created_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('model_pkey')),
    sa.UniqueConstraint('tenant', 'name', name=op.f('model_tenant_name_key'))
    )
    op.create_table('periodic_run',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('slot', sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column('started_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('finished_at', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('name', 'slot', name=op.f('periodic_run_pkey'))
    )
    op.create_table('prediction_block',
    sa.Column('job_id', sa.UUID(), nullable=False),
    sa.Column('first_row', sa.Integer(), nullable=False),
    sa.Column('version_id', sa.Integer(), nullable=False),
    sa.Column('rows', postgresql.ARRAY(sa.Integer()), nullable=True),
    sa.Column('record_keys', postgresql.ARRAY(sa.Text()), nullable=True),
    sa.Column('predictions', postgresql.ARRAY(sa.Text()), nullable=False),
    sa.Column('probability', postgresql.ARRAY(sa.Double()), nullable=True),
    sa.Column('probabilities', postgresql.ARRAY(sa.Double()), nullable=True),
    sa.Column('key_filter', sa.LargeBinary(), nullable=True),
    sa.Column('scored_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('cardinality(predictions) > 0 AND cardinality(rows) = cardinality(predictions) AND cardinality(record_keys) = cardinality(predictions) AND cardinality(probability) = cardinality(predictions) AND cardinality(probabilities) % cardinality(predictions) = 0', name=op.f('prediction_block_as_many_check')),
    sa.PrimaryKeyConstraint('job_id', 'first_row', name=op.f('prediction_block_pkey')),
    postgresql_partition_by='RANGE (job_id)'
    )
    op.create_index('prediction_block_record_keys_idx', 'prediction_block', ['record_keys'], unique=False, postgresql_using='gin', postgresql_where=sa.text('key_filter IS NULL'), postgresql_with={'fastupdate': 'off'})
    op.create_index('prediction_block_version_id_idx', 'prediction_block', ['version_id', 'job_id'], unique=False, postgresql_where=sa.text('key_filter IS NOT NULL'))
    op.create_table('worker_heartbeat',
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('worker', sa.Text(), nullable=False),
    sa.Column('lanes', postgresql.ARRAY(sa.Text()), nullable=False),
    sa.Column('versions', postgresql.ARRAY(sa.Text()), nullable=False),
    sa.Column('refused', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('release', sa.Text(), nullable=False),
    sa.Column('started_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('seen_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('claimed_at', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('owner', name=op.f('worker_heartbeat_pkey'))
    )
    op.create_table('model_version',
    sa.Column('id', sa.Integer(), sa.Identity(always=False), nullable=False),
    sa.Column('model_id', sa.Integer(), nullable=False),
    sa.Column('version', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('digest', sa.Text(), nullable=False),
    sa.Column('reference_digest', sa.Text(), nullable=False),
    sa.Column('format', sa.Text(), nullable=False),
    sa.Column('runtime', sa.Text(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('key_column', sa.Text(), nullable=True),
    sa.Column('target_column', sa.Text(), nullable=True),
    sa.Column('trusted', sa.Boolean(), nullable=False),
    sa.Column('signature', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('golden', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('metrics', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('lineage', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('attempts', sa.SmallInteger(), server_default='0', nullable=False),
    sa.Column('lease_until', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('created_by', sa.Text(), nullable=False),
    sa.Column('created_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("state IN ('registering', 'registered', 'failed')", name=op.f('model_version_state_check')),
    sa.ForeignKeyConstraint(['model_id'], ['model.id'], name=op.f('model_version_model_id_fkey')),
    sa.PrimaryKeyConstraint('id', name=op.f('model_version_pkey')),
    sa.UniqueConstraint('model_id', 'version', name=op.f('model_version_model_id_version_key'))
    )
    op.create_table('deployment',
    sa.Column('id', sa.UUID(), nullable=False),
    sa.Column('model_id', sa.Integer(), nullable=False),
    sa.Column('from_version_id', sa.Integer(), nullable=True),
    sa.Column('to_version_id', sa.Integer(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('reasons', postgresql.JSONB(astext_type=sa.Text()), server_default='[]', nullable=False),
    sa.Column('by', sa.Text(), nullable=False),
    sa.Column('why', sa.Text(), nullable=True),
    sa.Column('created_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('finished_at', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.CheckConstraint("kind IN ('deploy', 'rollback')", name=op.f('deployment_kind_check')),
    sa.CheckConstraint("state IN ('warming', 'validating', 'live', 'failed')", name=op.f('deployment_state_check')),
    sa.ForeignKeyConstraint(['from_version_id'], ['model_version.id'], name=op.f('deployment_from_version_id_fkey')),
    sa.ForeignKeyConstraint(['model_id'], ['model.id'], name=op.f('deployment_model_id_fkey')),
    sa.ForeignKeyConstraint(['to_version_id'], ['model_version.id'], name=op.f('deployment_to_version_id_fkey')),
    sa.PrimaryKeyConstraint('id', name=op.f('deployment_pkey'))
    )
    op.create_index(op.f('deployment_model_id_created_at_idx'), 'deployment', ['model_id', 'created_at'], unique=False)
    op.create_table('job',
    sa.Column('id', sa.UUID(), nullable=False),
    sa.Column('tenant', sa.Text(), nullable=False),
    sa.Column('version_id', sa.Integer(), nullable=False),
    sa.Column('parent_id', sa.UUID(), nullable=True),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('lane', sa.Text(), nullable=False),
    sa.Column('priority', sa.SmallInteger(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('format', sa.Text(), nullable=False),
    sa.Column('delimiter', sa.Text(), server_default=',', nullable=False),
    sa.Column('columns', postgresql.ARRAY(sa.Text()), nullable=False),
    sa.Column('key_column', sa.Text(), nullable=True),
    sa.Column('rows_total', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('rows_succeeded', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('rows_errored', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('rows_canceled', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('chunks_left', sa.Integer(), server_default='0', nullable=False),
    sa.Column('chunks_total', sa.Integer(), server_default='0', nullable=False),
    sa.Column('idempotency_key', sa.Text(), nullable=True),
    sa.Column('request_hash', sa.LargeBinary(), nullable=True),
    sa.Column('metadata', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('created_by', sa.Text(), nullable=False),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('created_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('started_at', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('finished_at', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('upload_lease_until', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.CheckConstraint("format IN ('csv', 'ndjson')", name=op.f('job_format_check')),
    sa.CheckConstraint("kind IN ('single', 'batch')", name=op.f('job_kind_check')),
    sa.CheckConstraint("lane IN ('interactive', 'bulk')", name=op.f('job_lane_check')),
    sa.CheckConstraint("state = 'receiving' OR (chunks_left >= 0 AND rows_total >= rows_succeeded + rows_errored + rows_canceled)", name=op.f('job_rows_balance_check')),
    sa.CheckConstraint("state IN ('receiving', 'queued', 'running') OR (chunks_left = 0 AND rows_total = rows_succeeded + rows_errored + rows_canceled)", name=op.f('job_terminal_is_complete_check')),
    sa.CheckConstraint("state IN ('receiving', 'queued', 'running', 'succeeded', 'completed_with_errors', 'failed', 'canceled')", name=op.f('job_state_check')),
    sa.ForeignKeyConstraint(['version_id'], ['model_version.id'], name=op.f('job_version_id_fkey')),
    sa.PrimaryKeyConstraint('id', name=op.f('job_pkey')),
    sa.UniqueConstraint('tenant', 'idempotency_key', name=op.f('job_tenant_idempotency_key_key')),
    postgresql_with={'fillfactor': '80'}
    )
    op.create_index('job_list_idx', 'job', ['tenant', sa.literal_column('id DESC')], unique=False, postgresql_where=sa.text("state <> 'receiving'"))
    op.create_index('job_open_idx', 'job', ['lane', 'id'], unique=False, postgresql_where=sa.text("state IN ('receiving', 'queued', 'running')"))
    op.create_table('model_alias',
    sa.Column('model_id', sa.Integer(), nullable=False),
    sa.Column('alias', sa.Text(), nullable=False),
    sa.Column('version_id', sa.Integer(), nullable=False),
    sa.Column('changed_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("alias IN ('production', 'candidate', 'previous')", name=op.f('model_alias_alias_check')),
    sa.ForeignKeyConstraint(['model_id'], ['model.id'], name=op.f('model_alias_model_id_fkey')),
    sa.ForeignKeyConstraint(['version_id'], ['model_version.id'], name=op.f('model_alias_version_id_fkey')),
    sa.PrimaryKeyConstraint('model_id', 'alias', name=op.f('model_alias_pkey'))
    )
    op.create_table('chunk',
    sa.Column('job_id', sa.UUID(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('lane', sa.Text(), nullable=False),
    sa.Column('priority', sa.SmallInteger(), nullable=False),
    sa.Column('version_id', sa.Integer(), nullable=False),
    sa.Column('first_row', sa.Integer(), nullable=False),
    sa.Column('rows', sa.Integer(), nullable=False),
    sa.Column('first_line', sa.BigInteger(), nullable=False),
    sa.Column('payload', sa.LargeBinary(), nullable=False),
    sa.Column('state', sa.Text(), server_default='queued', nullable=False),
    sa.Column('epoch', sa.Integer(), server_default='0', nullable=False),
    sa.Column('crashes', sa.SmallInteger(), server_default='0', nullable=False),
    sa.Column('rows_errored', sa.Integer(), server_default='0', nullable=False),
    sa.Column('owner', sa.Text(), nullable=True),
    sa.Column('lease_until', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('not_before', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('started_at', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('finished_at', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.CheckConstraint("state IN ('queued', 'running', 'done', 'canceled')", name=op.f('chunk_state_check')),
    sa.CheckConstraint('rows > 0', name=op.f('chunk_rows_positive_check')),
    sa.ForeignKeyConstraint(['job_id'], ['job.id'], name=op.f('chunk_job_id_fkey'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('job_id', 'number', name=op.f('chunk_pkey'))
    )
    op.create_index('chunk_claim_idx', 'chunk', ['lane', 'priority', 'number', 'job_id'], unique=False, postgresql_where=sa.text("state = 'queued'"))
    op.create_index('chunk_lease_idx', 'chunk', ['lease_until'], unique=False, postgresql_where=sa.text("state = 'running'"))
    op.create_index('chunk_suspect_idx', 'chunk', ['lane', 'job_id'], unique=False, postgresql_where=sa.text("state = 'queued' AND crashes > 0"))
    op.create_table('row_error',
    sa.Column('job_id', sa.UUID(), nullable=False),
    sa.Column('row', sa.Integer(), nullable=False),
    sa.Column('line', sa.BigInteger(), nullable=True),
    sa.Column('record_key', sa.Text(), nullable=True),
    sa.Column('column_name', sa.Text(), nullable=True),
    sa.Column('code', sa.Text(), nullable=False),
    sa.Column('message', sa.Text(), nullable=False),
    sa.Column('raw', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['job.id'], name=op.f('row_error_job_id_fkey'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('job_id', 'row', name=op.f('row_error_pkey'))
    )
    # The payload is compressed already; and an UPDATE of the chunk's state must not rewrite it.
    op.execute("ALTER TABLE chunk ALTER COLUMN payload SET STORAGE EXTERNAL")
    # Probabilities do not compress, and of a filter 64 bytes are read at a time, which needs it uncompressed.
    op.execute("ALTER TABLE prediction_block ALTER COLUMN probability SET STORAGE EXTERNAL, "
               "ALTER COLUMN probabilities SET STORAGE EXTERNAL, ALTER COLUMN key_filter SET STORAGE EXTERNAL")
    # Only for a clock that is a week off: the daily partitions are made ahead.
    op.execute("CREATE TABLE prediction_block_default PARTITION OF prediction_block DEFAULT")
    op.execute("""
        CREATE VIEW prediction AS
        SELECT b.job_id, COALESCE(u.row, b.first_row + CAST(u.place AS integer) - 1) AS row, b.version_id,
               u.record_key, u.prediction, u.probability, b.scored_at
        FROM prediction_block AS b
        CROSS JOIN LATERAL unnest(b.rows, b.record_keys, b.predictions, b.probability)
            WITH ORDINALITY AS u (row, record_key, prediction, probability, place)
    """)


def downgrade() -> None:
    op.drop_table('row_error')
    op.drop_index('chunk_suspect_idx', table_name='chunk', postgresql_where=sa.text("state = 'queued' AND crashes > 0"))
    op.drop_index('chunk_lease_idx', table_name='chunk', postgresql_where=sa.text("state = 'running'"))
    op.drop_index('chunk_claim_idx', table_name='chunk', postgresql_where=sa.text("state = 'queued'"))
    op.drop_table('chunk')
    op.drop_table('model_alias')
    op.drop_index('job_open_idx', table_name='job', postgresql_where=sa.text("state IN ('receiving', 'queued', 'running')"))
    op.drop_index('job_list_idx', table_name='job', postgresql_where=sa.text("state <> 'receiving'"))
    op.drop_table('job')
    op.drop_index(op.f('deployment_model_id_created_at_idx'), table_name='deployment')
    op.drop_table('deployment')
    op.drop_table('model_version')
    op.drop_table('worker_heartbeat')
    op.execute("DROP VIEW prediction")
    op.drop_table('prediction_block')
    op.drop_table('periodic_run')
    op.drop_table('model')
