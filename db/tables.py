"""The tables: their names are the vocabulary of `docs/explanation`, their constraints are the invariants.

`migrations/versions/` creates them; a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, UUID

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

_now = sa.text("now()")

# Of tables that stay small while their rows change all the time: vacuumed by the number of changes, whatever their size.
_CHANGING = {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"}
# Each change of theirs finds room on its own page, so that no index is touched and what is old is gone with the next one.
_IN_PLACE = {"fillfactor": "20", **_CHANGING}


def _timestamp(name: str, *, default: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=not default, server_default=_now if default else None)


def _one_of(name: str, *values: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{name} IN ({', '.join(repr(value) for value in values)})", name=name)


model = sa.Table(
    "model",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    # The slot that holds production. The other one holds what is being deployed, or else what was production before.
    sa.Column("live_slot", sa.Text, nullable=False, server_default="blue"),
    _timestamp("created_at", default=True),
    sa.UniqueConstraint("tenant", "name"),
    _one_of("live_slot", "blue", "green"),
)

model_version = sa.Table(
    "model_version",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("model_id", sa.Integer, sa.ForeignKey("model.id"), nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("reference_digest", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("runtime", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    # What it counts against the tenant's quota, with its reference; NULL: a release before quotas took it, its size counts.
    sa.Column("bytes_stored", sa.BigInteger),
    sa.Column("key_column", sa.Text),
    sa.Column("target_column", sa.Text),
    sa.Column("trusted", sa.Boolean, nullable=False),
    sa.Column("mismatch_allowed", sa.Boolean, nullable=False, server_default=sa.false()),
    # It becomes the model's candidate when its registration is complete.
    sa.Column("wants_candidate", sa.Boolean, nullable=False, server_default=sa.false()),
    # What whoever registered it said: columns to take instead of inferred ones, and where it comes from.
    sa.Column("edited_signature", JSONB),
    sa.Column("declared", JSONB, nullable=False, server_default="{}"),
    # What was found out when it was examined.
    sa.Column("signature", JSONB),
    sa.Column("golden", JSONB),
    sa.Column("metrics", JSONB),
    sa.Column("lineage", JSONB),
    # Which runtime was wanted, and what came of it, as `registry.compiled.record.Compiled`; NULL: of a release before.
    sa.Column("compiled", JSONB(none_as_null=True)),
    # Of the model itself, in a call of many; NULL: of a release before.
    sa.Column("seconds_per_row", sa.Double),
    sa.Column("error", sa.Text),
    sa.Column("attempts", sa.SmallInteger, nullable=False, server_default="0"),
    _timestamp("lease_until"),
    sa.Column("created_by", sa.Text, nullable=False),
    _timestamp("created_at", default=True),
    sa.UniqueConstraint("model_id", "version"),
    _one_of("state", "registering", "registered", "failed"),
)

model_alias = sa.Table(
    "model_alias",
    metadata,
    sa.Column("model_id", sa.Integer, sa.ForeignKey("model.id"), primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version_id", sa.Integer, sa.ForeignKey("model_version.id"), nullable=False),
    _timestamp("changed_at", default=True),
    _one_of("alias", "production", "candidate", "previous"),
)

deployment = sa.Table(
    "deployment",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("model_id", sa.Integer, sa.ForeignKey("model.id"), nullable=False),
    sa.Column("from_version_id", sa.Integer, sa.ForeignKey("model_version.id")),
    sa.Column("to_version_id", sa.Integer, sa.ForeignKey("model_version.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("slot", sa.Text),
    # The limits of the replay, if one is wanted, and what each step has found so far, in the order of the steps.
    sa.Column("gate", JSONB(none_as_null=True)),
    sa.Column("checks", JSON, nullable=False, server_default="{}"),
    sa.Column("reasons", JSONB, nullable=False, server_default="[]"),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("why", sa.Text),
    # The worker child that takes it further, for as long as its lease; how often that ended without a word.
    sa.Column("owner", sa.Text),
    _timestamp("lease_until"),
    sa.Column("attempts", sa.SmallInteger, nullable=False, server_default="0"),
    _timestamp("moved_at", default=True),
    _timestamp("created_at", default=True),
    _timestamp("finished_at"),
    _one_of("kind", "deploy", "rollback"),
    _one_of("state", "warming", "validating", "live", "failed"),
    _one_of("slot", "blue", "green"),
    sa.Index(None, "model_id", "created_at"),
    # One at a time: the second of two that begin at once is told of the first.
    sa.Index(
        "deployment_open_key",
        "model_id",
        unique=True,
        postgresql_where=sa.text("state IN ('warming', 'validating')"),
    ),
)

deployment_event = sa.Table(
    "deployment_event",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("deployment_id", UUID(as_uuid=True), sa.ForeignKey("deployment.id"), nullable=False),
    _timestamp("at", default=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Index(None, "deployment_id", "id"),
)

job = sa.Table(
    "job",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("version_id", sa.Integer, sa.ForeignKey("model_version.id"), nullable=False),
    sa.Column("parent_id", UUID(as_uuid=True)),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("lane", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("delimiter", sa.Text, nullable=False, server_default=","),
    sa.Column("columns", ARRAY(sa.Text), nullable=False),
    sa.Column("key_column", sa.Text),
    sa.Column("rows_total", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rows_succeeded", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rows_errored", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rows_canceled", sa.BigInteger, nullable=False, server_default="0"),
    # Chunks that are not terminal yet. While a job is being received it counts down from zero, and sealing the
    # upload adds their number: whoever brings it to zero on a sealed job makes the terminal transition.
    sa.Column("chunks_left", sa.Integer, nullable=False, server_default="0"),
    sa.Column("chunks_total", sa.Integer, nullable=False, server_default="0"),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("request_hash", sa.LargeBinary),
    sa.Column("metadata", JSONB, nullable=False, server_default="{}"),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    _timestamp("created_at", default=True),
    _timestamp("started_at"),
    _timestamp("finished_at"),
    # The time that the rows stand for, when it is not now; audits put them into its window.
    _timestamp("as_of"),
    sa.Column("endpoint", sa.Text, nullable=False, server_default="jobs"),
    # Renewed while an upload streams in; an upload whose lease is over was abandoned with its API process.
    _timestamp("upload_lease_until"),
    # What its input counts against the tenant's quota, as packed on arrival; NULL: the job counts against none, because
    # a deployment made it or a release before quotas took it.
    sa.Column("bytes_stored", sa.BigInteger),
    # When retention took the inputs; its chunks have empty payloads then.
    _timestamp("inputs_removed_at"),
    _one_of("kind", "single", "batch"),
    _one_of("lane", "interactive", "bulk"),
    _one_of("format", "csv", "ndjson"),
    _one_of("state", "receiving", "queued", "running", "succeeded", "completed_with_errors", "failed", "canceled"),
    sa.CheckConstraint(
        "state = 'receiving' OR (chunks_left >= 0 AND rows_total >= rows_succeeded + rows_errored + rows_canceled)",
        name="rows_balance",
    ),
    sa.CheckConstraint(
        "state IN ('receiving', 'queued', 'running') OR "
        "(chunks_left = 0 AND rows_total = rows_succeeded + rows_errored + rows_canceled)",
        name="terminal_is_complete",
    ),
    sa.UniqueConstraint("tenant", "idempotency_key"),
    sa.Index("job_list_idx", "tenant", sa.text("id DESC"), postgresql_where=sa.text("state <> 'receiving'")),
    # Jobs of a model, and those that did not simply succeed, where most are of other models and did.
    sa.Index("job_version_idx", "version_id", "id"),
    sa.Index(
        "job_unusual_idx",
        "tenant",
        "state",
        "id",
        postgresql_where=sa.text("state IN ('completed_with_errors', 'failed', 'canceled')"),
    ),
    sa.Index("job_as_of_idx", "version_id", "as_of", postgresql_where=sa.text("as_of IS NOT NULL")),
    sa.Index("job_open_idx", "lane", "id", postgresql_where=sa.text("state IN ('receiving', 'queued', 'running')")),
    # A job's counters change with each chunk, its state moves it between partial indexes, which scans of open jobs read.
    postgresql_with={
        "fillfactor": "80",
        "autovacuum_vacuum_scale_factor": "0.02",
        "autovacuum_vacuum_threshold": "1000",
        "autovacuum_analyze_scale_factor": "0.02",
    },
)

# In what order the chunks of a tenant are claimed.
_TURN = ("lane", "tenant", "priority", "number", "job_id")

chunk = sa.Table(
    "chunk",
    metadata,
    sa.Column("job_id", UUID(as_uuid=True), sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    # NULL only where a chunk had ended before chunks bore it.
    sa.Column("tenant", sa.Text),
    sa.Column("lane", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("version_id", sa.Integer, nullable=False),
    sa.Column("first_row", sa.Integer, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("first_line", sa.BigInteger, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="queued"),
    sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),
    sa.Column("crashes", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("rows_errored", sa.Integer, nullable=False, server_default="0"),
    sa.Column("owner", sa.Text),
    _timestamp("lease_until"),
    _timestamp("not_before", default=True),
    _timestamp("started_at"),
    _timestamp("finished_at"),
    _one_of("state", "queued", "running", "done", "canceled"),
    sa.CheckConstraint("rows > 0", name="rows_positive"),
    sa.CheckConstraint("state <> 'queued' OR tenant IS NOT NULL", name="queued_for_a_tenant"),
    sa.Index("chunk_turn_idx", *_TURN, postgresql_where=sa.text("state = 'queued'")),
    sa.Index("chunk_suspect_turn_idx", *_TURN, postgresql_where=sa.text("state = 'queued' AND crashes > 0")),
    sa.Index("chunk_lease_idx", "lease_until", postgresql_where=sa.text("state = 'running'")),
    # What was scored of a version in some time, for audits and trainings that look at inputs again.
    sa.Index("chunk_done_idx", "version_id", "finished_at", postgresql_where=sa.text("state = 'done'")),
    # Each chunk leaves two old versions of its row, and of its entries in the indexes that claims read.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": "0.01",
        "autovacuum_vacuum_threshold": "1000",
        "autovacuum_analyze_scale_factor": "0.02",
        "toast.autovacuum_vacuum_scale_factor": "0.05",
    },
)

# The predictions of one chunk, column by column: an entry per row in a table and two indexes costs ten times the server's
# time and twenty times the space (decision 0006). Partitioned by the time inside the job's UUIDv7: one column is the
# partition key, the first column of the primary key and what every query has at hand, so that a look-up is pruned and a
# chunk cannot be stored twice.
prediction_block = sa.Table(
    "prediction_block",
    metadata,
    sa.Column("job_id", UUID(as_uuid=True), primary_key=True),
    sa.Column("first_row", sa.Integer, primary_key=True),
    sa.Column("version_id", sa.Integer, nullable=False),
    # The row of each prediction; NULL: one row after the other, from the first.
    sa.Column("rows", ARRAY(sa.Integer)),
    sa.Column("record_keys", ARRAY(sa.Text)),
    sa.Column("predictions", ARRAY(sa.Text), nullable=False),
    sa.Column("probability", ARRAY(sa.Double)),
    # Of more than two classes: all of the first class, then all of the second, …
    sa.Column("probabilities", ARRAY(sa.Double)),
    # `records.key_filter`; small blocks have their keys in an index instead.
    sa.Column("key_filter", sa.LargeBinary),
    _timestamp("scored_at", default=True),
    sa.CheckConstraint(
        "cardinality(predictions) > 0"
        " AND cardinality(rows) = cardinality(predictions)"
        " AND cardinality(record_keys) = cardinality(predictions)"
        " AND cardinality(probability) = cardinality(predictions)"
        " AND cardinality(probabilities) % cardinality(predictions) = 0",
        name="as_many",
    ),
    sa.Index(
        "prediction_block_record_keys_idx",
        "record_keys",
        postgresql_using="gin",
        postgresql_where=sa.text("key_filter IS NULL"),
        postgresql_with={"fastupdate": "off"},  # a finish must not stop to merge what others left pending
    ),
    sa.Index(
        "prediction_block_version_id_idx", "version_id", "job_id", postgresql_where=sa.text("key_filter IS NOT NULL")
    ),
    # What was scored on a day, and almost no cost to a finish: blocks are appended in the order of their time.
    sa.Index(
        "prediction_block_scored_at_idx",
        "scored_at",
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on", "pages_per_range": "32"},
    ),
    postgresql_partition_by="RANGE (job_id)",
)

# A view: one row per prediction, for people and for checks.
prediction = sa.Table(
    "prediction",
    sa.MetaData(),
    sa.Column("job_id", UUID(as_uuid=True)),
    sa.Column("row", sa.Integer),
    sa.Column("version_id", sa.Integer),
    sa.Column("record_key", sa.Text),
    sa.Column("prediction", sa.Text),
    sa.Column("probability", sa.Double),
    _timestamp("scored_at"),
)

row_error = sa.Table(
    "row_error",
    metadata,
    sa.Column("job_id", UUID(as_uuid=True), sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("row", sa.Integer, primary_key=True),
    sa.Column("line", sa.BigInteger),
    sa.Column("record_key", sa.Text),
    sa.Column("column_name", sa.Text),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("raw", sa.Text, nullable=False),
)

worker_heartbeat = sa.Table(
    "worker_heartbeat",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("lanes", ARRAY(sa.Text), nullable=False),
    sa.Column("versions", ARRAY(sa.Text), nullable=False),
    sa.Column("refused", JSONB, nullable=False, server_default="{}"),
    # What the child answers to each deployment that is under way: loading, warm, or refused and why.
    sa.Column("deployments", JSONB, nullable=False, server_default="{}"),
    sa.Column("release", sa.Text, nullable=False),
    _timestamp("started_at", default=True),
    _timestamp("seen_at", default=True),
    _timestamp("claimed_at"),
    postgresql_with=_IN_PLACE,
)

periodic_run = sa.Table(
    "periodic_run",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("slot", sa.TIMESTAMP(timezone=True), primary_key=True),
    _timestamp("started_at", default=True),
    _timestamp("finished_at"),
    sa.Column("error", sa.Text),
)

# What the distributions, the score histogram and the figures of a version's reference are.
reference_profile = sa.Table(
    "reference_profile",
    metadata,
    sa.Column("version_id", sa.Integer, sa.ForeignKey("model_version.id"), primary_key=True, autoincrement=False),
    sa.Column("schema", JSONB, nullable=False),
    sa.Column("schema_digest", sa.Text, nullable=False),
    sa.Column("profile", sa.LargeBinary, nullable=False),
    sa.Column("outcomes", JSONB),
    sa.Column("calibration", JSONB),
)

# What a finish adds to the statistics, written in its transaction, until it is rolled up (`db.profiles`).
chunk_profile = sa.Table(
    "chunk_profile",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("version_id", sa.Integer, nullable=False),
    sa.Column("job_id", UUID(as_uuid=True), nullable=False),
    # The time that the rows stand for: of the job, if it says so, else when they were scored.
    sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("errors", JSONB, nullable=False, server_default="{}"),
    # From submission to here, of each chunk.
    sa.Column("seconds", ARRAY(sa.Double), nullable=False),
    sa.Column("schema_digest", sa.Text),
    sa.Column("profile", sa.LargeBinary),
    sa.Index(None, "job_id"),
    sa.Index(None, "version_id", "at"),
    postgresql_with=_CHANGING | {"autovacuum_vacuum_threshold": "1000"},
)

profile_window = sa.Table(
    "profile_window",
    metadata,
    sa.Column("version_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("schema_digest", sa.Text, primary_key=True),
    sa.Column("start", sa.TIMESTAMP(timezone=True), primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("profile", sa.LargeBinary, nullable=False),
)

# Counters for Prometheus, which never go down: what was rolled up so far.
scoring_total = sa.Table(
    "scoring_total",
    metadata,
    sa.Column("version_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("endpoint", sa.Text, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("errors", JSONB, nullable=False, server_default="{}"),
    sa.Column("seconds_sum", sa.Double, nullable=False),
    sa.Column("seconds_counts", ARRAY(sa.BigInteger), nullable=False),
)

event_total = sa.Table(
    "event_total",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
)

# No id and no foreign key: a million labels come in one upload, and to number them or to look up their model for each
# costs as much as all else that stores them. What a label is about is its key: one of the two indexes.
label = sa.Table(
    "label",
    metadata,
    sa.Column("model_id", sa.Integer, nullable=False),
    sa.Column("record_key", sa.Text(collation="C")),
    sa.Column("job_id", UUID(as_uuid=True)),
    sa.Column("row", sa.Integer),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("observed_at", sa.TIMESTAMP(timezone=True), nullable=False),
    _timestamp("received_at", default=True),
    sa.CheckConstraint(
        "(record_key IS NULL) = (job_id IS NOT NULL) AND (job_id IS NULL) = (row IS NULL)", name="one_target"
    ),
    sa.Index(
        "label_record_key_idx",
        "model_id",
        "record_key",
        unique=True,
        postgresql_where=sa.text("record_key IS NOT NULL"),
    ),
    # With the model: a label that another model, of another tenant perhaps, has for the same prediction is no obstacle.
    sa.Index(
        "label_prediction_idx",
        "model_id",
        "job_id",
        "row",
        unique=True,
        postgresql_where=sa.text("job_id IS NOT NULL"),
    ),
    # What retention removes: labels are appended in the order in which they come, or nearly.
    sa.Index(
        "label_received_at_idx",
        "received_at",
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on", "pages_per_range": "32"},
    ),
)

# Labelled predictions of a version and a day (UTC) of what its rows stand for; dirty ones are counted anew.
outcome_window = sa.Table(
    "outcome_window",
    metadata,
    sa.Column("version_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("scored", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("labelled", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("outcomes", JSONB),
    sa.Column("dirty", sa.Boolean, nullable=False),
    _timestamp("computed_at"),
    sa.Index("outcome_window_dirty_idx", "version_id", "day", postgresql_where=sa.text("dirty")),
)

audit_policy = sa.Table(
    "audit_policy",
    metadata,
    sa.Column("model_id", sa.Integer, sa.ForeignKey("model.id"), primary_key=True, autoincrement=False),
    sa.Column("every_hours", sa.Integer, nullable=False, server_default="1"),
    sa.Column("window_hours", sa.Integer, nullable=False, server_default="24"),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.text("true")),
    sa.Column("tolerance", sa.Double, nullable=False, server_default="0.05"),
    sa.Column("horizon_days", sa.Integer),
    sa.Column("negative_label", sa.Text),
    # When it was enabled again, after it was disabled.
    _timestamp("enabled_since"),
    sa.CheckConstraint("every_hours BETWEEN 1 AND 744 AND window_hours BETWEEN 1 AND 8784", name="hours"),
    sa.CheckConstraint("(horizon_days IS NULL) = (negative_label IS NULL)", name="horizon"),
)

audit_run = sa.Table(
    "audit_run",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("model_id", sa.Integer, sa.ForeignKey("model.id"), nullable=False),
    sa.Column("version_id", sa.Integer, sa.ForeignKey("model_version.id"), nullable=False),
    sa.Column("window_start", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column("window_end", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column("configuration", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="queued"),
    # Whether its findings move alerts: those of schedules do, a person's look at some window does not.
    sa.Column("alerting", sa.Boolean, nullable=False),
    sa.Column("scheduled", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("attempts", sa.SmallInteger, nullable=False, server_default="0"),
    _timestamp("lease_until"),
    sa.Column("status", sa.Text),
    sa.Column("rows", sa.BigInteger),
    # As it was written: JSONB would put accuracy, precision, recall into the order of their lengths.
    sa.Column("document", JSON),
    sa.Column("error", sa.Text),
    _timestamp("created_at", default=True),
    _timestamp("finished_at"),
    _one_of("kind", "drift", "accuracy", "domain"),
    _one_of("state", "queued", "running", "done", "failed"),
    sa.UniqueConstraint("version_id", "kind", "window_start", "window_end", "configuration", name="audit_run_once_key"),
    sa.Index("audit_run_due_idx", "id", postgresql_where=sa.text("state IN ('queued', 'running')")),
    sa.Index("audit_run_latest_idx", "model_id", "kind", "window_end"),
)

audit_result = sa.Table(
    "audit_result",
    metadata,
    sa.Column("run_id", UUID(as_uuid=True), sa.ForeignKey("audit_run.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("statistic", sa.Text, primary_key=True),
    sa.Column("value", sa.Double),
    sa.Column("warn", sa.Double),
    sa.Column("critical", sa.Double),
    sa.Column("p_value", sa.Double),
    sa.Column("significant", sa.Boolean),
    sa.Column("status", sa.Text, nullable=False),
)

alert = sa.Table(
    "alert",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("model_id", sa.Integer, sa.ForeignKey("model.id"), nullable=False),
    sa.Column("version_id", sa.Integer, sa.ForeignKey("model_version.id"), nullable=False),
    sa.Column("column_name", sa.Text, nullable=False),
    sa.Column("check", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("severity", sa.Text),
    sa.Column("value", sa.Double),
    # What the state machine of `monitoring.alerts` remembers.
    sa.Column("machine", JSONB, nullable=False),
    _timestamp("created_at", default=True),
    _timestamp("changed_at", default=True),
    sa.UniqueConstraint("version_id", "column_name", "check"),
)

alert_event = sa.Table(
    "alert_event",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("alert_id", UUID(as_uuid=True), sa.ForeignKey("alert.id", ondelete="CASCADE"), nullable=False),
    _timestamp("at", default=True),
    sa.Column("from_state", sa.Text, nullable=False),
    sa.Column("to_state", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("run_id", UUID(as_uuid=True)),
    sa.Column("document", JSONB, nullable=False),
    # None: nobody was told yet. A channel that failed is tried again at the time that is given.
    sa.Column("deliveries", JSONB(none_as_null=True)),
    sa.Column("attempts", sa.SmallInteger, nullable=False, server_default="0"),
    _timestamp("next_attempt_at"),
    sa.Index(
        "alert_event_due_idx", "id", postgresql_where=sa.text("deliveries IS NULL OR next_attempt_at IS NOT NULL")
    ),
)

training_policy = sa.Table(
    "training_policy",
    metadata,
    sa.Column("model_id", sa.Integer, sa.ForeignKey("model.id"), primary_key=True, autoincrement=False),
    sa.Column("promotion", sa.Text, nullable=False, server_default="manual"),
    sa.Column("every_days", sa.Integer),
    sa.Column("on_alert", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("min_labelled_rows", sa.Integer, nullable=False, server_default="1000"),
    sa.Column("max_rows", sa.Integer, nullable=False, server_default="200000"),
    sa.Column("max_age_days", sa.Integer, nullable=False, server_default="365"),
    # The recipe of the challenger; NULL: that of the champion, or its estimator fitted again.
    sa.Column("recipe", sa.Text),
    # When the schedule was last changed: slots before it are not asked for.
    _timestamp("scheduled_since"),
    _one_of("promotion", "manual", "auto-if-better"),
    sa.CheckConstraint(
        "every_days BETWEEN 1 AND 366 AND min_labelled_rows > 0 AND max_rows > 0 AND max_age_days > 0", name="bounds"
    ),
)

# A queue like `audit_run`: Postgres says what is due, a permit only wakes a worker.
training_run = sa.Table(
    "training_run",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("model_id", sa.Integer, sa.ForeignKey("model.id"), nullable=False),
    sa.Column("trigger_kind", sa.Text, nullable=False),
    # The caller's idempotency key, the day of a schedule, or the id of an alert's event: each runs once.
    sa.Column("trigger_key", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="queued"),
    sa.Column("champion_version_id", sa.Integer, sa.ForeignKey("model_version.id")),
    sa.Column("challenger_version_id", sa.Integer, sa.ForeignKey("model_version.id")),
    # The figures and the decision, as they were written.
    sa.Column("document", JSON(none_as_null=True)),
    sa.Column("attempts", sa.SmallInteger, nullable=False, server_default="0"),
    _timestamp("lease_until"),
    sa.Column("error", sa.Text),
    sa.Column("by", sa.Text, nullable=False),
    _timestamp("created_at", default=True),
    _timestamp("started_at"),
    _timestamp("finished_at"),
    _one_of("trigger_kind", "hand", "schedule", "alert"),
    _one_of("state", "queued", "running", "succeeded", "failed", "skipped"),
    sa.UniqueConstraint("model_id", "trigger_kind", "trigger_key", name="training_run_once_key"),
    sa.Index("training_run_due_idx", "id", postgresql_where=sa.text("state IN ('queued', 'running')")),
    sa.Index("training_run_latest_idx", "model_id", "id"),
)

# Never the token itself: what it says, so that it can be listed and revoked. One that was made while the database could
# not be reached stands here only once it is revoked, and then with its id alone.
token = sa.Table(
    "token",
    metadata,
    sa.Column("jti", sa.Text, primary_key=True),
    sa.Column("kid", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("tenant", sa.Text),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False, server_default="{}"),
    # The token that asked for this one over HTTP, and its key: both end with it.
    sa.Column("parent_jti", sa.Text),
    sa.Column("parent_kid", sa.Text),
    _timestamp("created_at", default=True),
    sa.Column("created_by", sa.Text),
    _timestamp("expires_at"),
    _timestamp("revoked_at"),
    sa.Column("revoked_by", sa.Text),
    sa.Column("why", sa.Text),
    sa.CheckConstraint("(revoked_at IS NULL) = (revoked_by IS NULL)", name="revoked"),
    sa.Index("token_tenant_idx", "tenant", "jti"),
    sa.Index("token_parent_idx", "parent_jti"),
    sa.Index("token_revoked_idx", "jti", postgresql_where=sa.text("revoked_at IS NOT NULL")),
)

# Privileged acts. Append-only by a trigger of the migration; `audit_trail_expire(days)` removes what is old.
audit_trail = sa.Table(
    "audit_trail",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    # The order of the acts, also of those of one transaction.
    sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    # NULL: the act concerns the whole installation.
    sa.Column("tenant", sa.Text),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("act", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("details", JSONB, nullable=False, server_default="{}"),
    # Of the request's token; NULL: a command or a worker did it.
    sa.Column("token_jti", sa.Text),
    sa.Index("audit_trail_tenant_idx", "tenant", "at", "id"),
    sa.Index("audit_trail_at_idx", "at", "id"),
)

# What a tenant may use where that differs from the defaults: names of quotas; null is unlimited, absent is the default.
tenant_quota = sa.Table(
    "tenant_quota",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("limits", JSONB, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    _timestamp("changed_at", default=True),
)

# What a tenant uses: changed in the transaction of the job that it is about, so that it is exact. Free space on its
# page lets each change stay there.
tenant_usage = sa.Table(
    "tenant_usage",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("jobs_open", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("bytes_stored", sa.BigInteger, nullable=False, server_default="0"),
    postgresql_with=_IN_PLACE,
)

# Rows by the day (UTC) on which their job was created.
tenant_day = sa.Table(
    "tenant_day",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False, server_default="0"),
    postgresql_with=_IN_PLACE,
)

# A body that is being received: its place is free again when it ends, or when its lease does.
tenant_upload = sa.Table(
    "tenant_upload",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Index(None, "tenant"),
    postgresql_with=_CHANGING,
)

# The bucket of requests of a tenant. Unlogged: after a crash every bucket is full, and that is all.
tenant_rate = sa.Table(
    "tenant_rate",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("tokens", sa.Double, nullable=False),
    sa.Column("granted", sa.Integer, nullable=False),
    sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False),
    prefixes=["UNLOGGED"],
    postgresql_with=_IN_PLACE,
)
