"""Tokens that were made or revoked, and the audit trail of privileged acts, which nobody changes afterwards."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None

# Whoever holds the role of the application can add to the trail, and remove what is old; never change it.
_APPEND_ONLY = """
CREATE FUNCTION audit_trail_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < now() - interval '30 days' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit trail is append-only: no entry is changed, and none younger than 30 days is removed'
        USING ERRCODE = 'restrict_violation';
END $$
"""
# With the rights of the tables' owner, so that the application's role needs no DELETE on the table.
_EXPIRE = """
CREATE FUNCTION audit_trail_expire(days integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE removed bigint;
BEGIN
    DELETE FROM audit_trail WHERE at < now() - make_interval(days => greatest(days, 30));
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$
"""


def upgrade() -> None:
    op.create_table('token',
    sa.Column('jti', sa.Text(), nullable=False),
    sa.Column('kid', sa.Text(), nullable=True),
    sa.Column('subject', sa.Text(), nullable=True),
    sa.Column('tenant', sa.Text(), nullable=True),
    sa.Column('scopes', postgresql.ARRAY(sa.Text()), server_default='{}', nullable=False),
    sa.Column('parent_jti', sa.Text(), nullable=True),
    sa.Column('parent_kid', sa.Text(), nullable=True),
    sa.Column('created_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('created_by', sa.Text(), nullable=True),
    sa.Column('expires_at', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('revoked_at', sa.TIMESTAMP(timezone=True), nullable=True),
    sa.Column('revoked_by', sa.Text(), nullable=True),
    sa.Column('why', sa.Text(), nullable=True),
    sa.CheckConstraint('(revoked_at IS NULL) = (revoked_by IS NULL)', name=op.f('token_revoked_check')),
    sa.PrimaryKeyConstraint('jti', name=op.f('token_pkey'))
    )
    op.create_index('token_tenant_idx', 'token', ['tenant', 'jti'], unique=False)
    op.create_index('token_parent_idx', 'token', ['parent_jti'], unique=False)
    op.create_index('token_revoked_idx', 'token', ['jti'], unique=False, postgresql_where=sa.text('revoked_at IS NOT NULL'))
    op.create_table('audit_trail',
    sa.Column('id', sa.UUID(), nullable=False),
    sa.Column('at', sa.TIMESTAMP(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('tenant', sa.Text(), nullable=True),
    sa.Column('by', sa.Text(), nullable=False),
    sa.Column('act', sa.Text(), nullable=False),
    sa.Column('target', sa.Text(), nullable=False),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('token_jti', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('audit_trail_pkey'))
    )
    op.create_index('audit_trail_tenant_idx', 'audit_trail', ['tenant', 'at', 'id'], unique=False)
    op.create_index('audit_trail_at_idx', 'audit_trail', ['at', 'id'], unique=False)
    op.execute(_APPEND_ONLY)
    op.execute(
        'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_trail '
        'FOR EACH ROW EXECUTE FUNCTION audit_trail_append_only()'
    )
    op.execute(
        'CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_trail '
        'FOR EACH STATEMENT EXECUTE FUNCTION audit_trail_append_only()'
    )
    op.execute(_EXPIRE)
    # A function with the owner's rights must not find a table that its caller put in the way, a temporary one least of all.
    schema = op.get_bind().scalar(sa.text('SELECT quote_ident(current_schema())'))
    op.execute(f'ALTER FUNCTION audit_trail_expire SET search_path = {schema}, pg_temp')
    op.execute('REVOKE ALL ON FUNCTION audit_trail_expire FROM PUBLIC')


def downgrade() -> None:
    op.execute('DROP FUNCTION audit_trail_expire')
    op.drop_table('audit_trail')
    op.execute('DROP FUNCTION audit_trail_append_only')
    op.drop_table('token')
