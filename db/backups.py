"""What a backup asks the database: a snapshot to be dumped and all that it refers to, and whether a database is empty."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from db.engine import create_engine
from db.jobs import OPEN
from db.tables import chunk, job, model_version

# What tells of processes that run now, and of nothing that they did.
MOMENTARY = ("worker_heartbeat", "tenant_upload", "tenant_rate")


@dataclass(frozen=True)
class Snapshot:
    """One moment of the database, for as long as the transaction that exported it is open.

    Attributes:
        name: for `pg_dump --snapshot`.
        server: the major version of Postgres.
        artefacts: the digests of all that versions refer to.
        bytes: of the whole database, indexes too: a dump has fewer.
    """

    name: str
    server: int
    schema: str
    artefacts: list[str]
    jobs: int
    jobs_open: int
    bytes: int


def engine(url: str) -> Engine:
    """For a transaction that waits for a dump, as the owner of the tables."""
    return create_engine(url, name="scorehouse-backup", role=None, pool_size=1, statement_timeout=0, idle_timeout=0)


def snapshot(connection: Connection) -> Snapshot:
    """Export the snapshot of this transaction; its first statement."""
    connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    name = connection.execute(sa.text("SELECT pg_export_snapshot()")).scalar_one()
    compiled = model_version.c.compiled["digest"].astext
    quantised = model_version.c.compiled["quantised"]["digest"].astext
    digests = sa.union(
        sa.select(model_version.c.digest),
        sa.select(model_version.c.reference_digest),
        sa.select(compiled).where(compiled.is_not(None)),
        sa.select(quantised).where(quantised.is_not(None)),
    )
    return Snapshot(
        name=name,
        server=server_version(connection),
        schema=connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one(),
        artefacts=sorted(connection.execute(digests).scalars()),
        jobs=connection.execute(sa.select(sa.func.count()).select_from(job)).scalar_one(),
        jobs_open=connection.execute(
            sa.select(sa.func.count()).select_from(job).where(job.c.state.in_(OPEN))
        ).scalar_one(),
        bytes=connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one(),
    )


def server_version(connection: Connection) -> int:
    """The major version."""
    return int(connection.execute(sa.text("SHOW server_version_num")).scalar_one()) // 10_000


def relations(connection: Connection) -> list[str]:
    """Tables, views and sequences that somebody made, at most ten of them."""
    return list(
        connection.execute(
            sa.text(
                "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S') AND relnamespace NOT IN "
                "(SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' OR nspname = 'information_schema') ORDER BY 1 LIMIT 10"
            )
        ).scalars()
    )


def requeue(connection: Connection) -> int:
    """Take back what was in workers' hands when the snapshot was taken, which counts as no crash; returns how many."""
    return connection.execute(
        sa.update(chunk)
        .where(chunk.c.state == "running")
        .values(state="queued", epoch=chunk.c.epoch + 1, owner=None, lease_until=None)
    ).rowcount
