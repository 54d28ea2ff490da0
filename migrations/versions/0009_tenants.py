"""Tenants: the two roles that sessions act as, row-level security for one of them, and what only the owner may do.

The release before connects as the owner, whom row-level security does not touch.
"""

from __future__ import annotations

from alembic import op

from migrations.roles import ensure_roles

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None

# The rows of each table that belong to the tenant: a condition over the table's own columns. The inner tables are under
# the same lock, so that `SELECT id FROM model` is the tenant's models.
# A sub-select is evaluated once for a query, not for each row.
OF_TENANT = "tenant = (SELECT current_setting('scorehouse.tenant', true))"
OF_MODEL = "model_id IN (SELECT id FROM model)"
OF_VERSION = "version_id IN (SELECT id FROM model_version)"
POLICIES = {
    **dict.fromkeys(("model", "job", "token", "audit_trail"), OF_TENANT),
    **dict.fromkeys(("tenant_quota", "tenant_usage", "tenant_day", "tenant_upload", "tenant_rate"), OF_TENANT),
    "model_version": OF_MODEL,
    "model_alias": OF_MODEL,
    "deployment": OF_MODEL,
    "label": OF_MODEL,
    "audit_policy": OF_MODEL,
    "audit_run": OF_MODEL,
    "alert": OF_MODEL,
    "training_policy": OF_MODEL,
    "training_run": OF_MODEL,
    "chunk": OF_VERSION,
    "prediction_block": OF_VERSION,
    "reference_profile": OF_VERSION,
    "chunk_profile": OF_VERSION,
    "profile_window": OF_VERSION,
    "scoring_total": OF_VERSION,
    "outcome_window": OF_VERSION,
    "row_error": "EXISTS (SELECT FROM job WHERE job.id = job_id)",
    "deployment_event": "EXISTS (SELECT FROM deployment AS d WHERE d.id = deployment_id)",
    "audit_result": "EXISTS (SELECT FROM audit_run AS r WHERE r.id = run_id)",
    "alert_event": "EXISTS (SELECT FROM alert AS a WHERE a.id = alert_id)",
}
# What may be added to, and is never changed: what is old goes by a function of the owner's.
APPEND_ONLY = ("audit_trail",)
# What a tenant may look at, and the operator sets.
OPERATORS = ("tenant_quota",)
# What is the installation's own.
SYSTEM_TABLES = ("worker_heartbeat", "periodic_run", "event_total")

# With the search path of whoever migrates, and no other: the caller's could name another `prediction_block`.
MAKE_PARTITION = """
    CREATE FUNCTION scorehouse_make_partition(name text, low uuid, high uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
        IF name !~ '^prediction_block_[0-9]{8}$' THEN
            RAISE EXCEPTION '% is no name of a partition', name;
        END IF;
        EXECUTE format('CREATE TABLE %I PARTITION OF prediction_block FOR VALUES FROM (%L) TO (%L)', name, low, high);
    END $$
"""
DROP_PARTITION = """
    CREATE FUNCTION scorehouse_drop_partition(name text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
        IF name !~ '^prediction_block_[0-9]{8}$' THEN
            RAISE EXCEPTION '% is no name of a partition', name;
        END IF;
        EXECUTE format('DROP TABLE %I', name);
    END $$
"""
FUNCTIONS = ("scorehouse_make_partition(text, uuid, uuid)", "scorehouse_drop_partition(text)")
EXPIRE_TRAIL = "audit_trail_expire(integer)"


def upgrade() -> None:
    ensure_roles(op.get_bind())
    op.execute("DO $$ BEGIN EXECUTE format("
               "'GRANT USAGE ON SCHEMA %I TO scorehouse_tenant, scorehouse_system', current_schema()); END $$")
    # Whoever asks which schema this is need not act as anybody.
    op.execute("GRANT SELECT ON alembic_version TO PUBLIC")
    for table, condition in POLICIES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY of_tenant ON {table} TO scorehouse_tenant USING ({condition})")
        rights = "SELECT, INSERT" if table in APPEND_ONLY else "SELECT, INSERT, UPDATE, DELETE"
        op.execute(f"GRANT {rights} ON {table} TO scorehouse_system")
        op.execute(f"GRANT {'SELECT' if table in OPERATORS else rights} ON {table} TO scorehouse_tenant")
    for table in SYSTEM_TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO scorehouse_system")
    # A view reads as its owner unless it is told otherwise.
    op.execute("ALTER VIEW prediction SET (security_invoker = true)")
    op.execute("GRANT SELECT ON prediction TO scorehouse_tenant, scorehouse_system")
    for function in (MAKE_PARTITION, DROP_PARTITION):
        op.execute(function)
    for name in FUNCTIONS:
        op.execute(f"REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {name} TO scorehouse_system")
    op.execute(f"GRANT EXECUTE ON FUNCTION {EXPIRE_TRAIL} TO scorehouse_system")


def downgrade() -> None:
    """The roles stay: another database of this server may use them."""
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}")
    op.execute(f"REVOKE ALL ON FUNCTION {EXPIRE_TRAIL} FROM scorehouse_system")
    op.execute("REVOKE ALL ON prediction FROM scorehouse_tenant, scorehouse_system")
    op.execute("ALTER VIEW prediction RESET (security_invoker)")
    for table in SYSTEM_TABLES:
        op.execute(f"REVOKE ALL ON {table} FROM scorehouse_system")
    for table in POLICIES:
        op.execute(f"REVOKE ALL ON {table} FROM scorehouse_tenant, scorehouse_system")
        op.execute(f"DROP POLICY of_tenant ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    op.execute("REVOKE SELECT ON alembic_version FROM PUBLIC")
    op.execute("DO $$ BEGIN EXECUTE format("
               "'REVOKE USAGE ON SCHEMA %I FROM scorehouse_tenant, scorehouse_system', current_schema()); END $$")
