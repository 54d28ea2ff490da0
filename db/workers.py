"""Heartbeats: which worker children live, and what they hold and refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from db.tables import worker_heartbeat

# A child writes every two seconds; after this long it counts as gone.
ALIVE_SECONDS = 10


def beat(
    connection: Connection,
    *,
    owner: str,
    worker: str,
    lanes: Sequence[str],
    versions: Sequence[str],
    refused: Mapping[str, str],
    deployments: Mapping[str, Mapping[str, str]] | None = None,
    release: str,
    claimed: bool,
) -> None:
    """Say that a worker child lives.

    Args:
        versions: the digests that it holds.
        refused: reasons by digest.
        deployments: what it answers to those that are under way, by id: a `state`, which is loading, warm or refused,
            and the `reason` of a refusal.
    """
    values = {
        "worker": worker,
        "lanes": list(lanes),
        "versions": list(versions),
        "refused": dict(refused),
        "deployments": dict(deployments or {}),
        "release": release,
        "seen_at": sa.func.now(),
    }
    if claimed:
        values["claimed_at"] = sa.func.now()
    connection.execute(
        insert(worker_heartbeat)
        .values(owner=owner, **values)
        .on_conflict_do_update(index_elements=[worker_heartbeat.c.owner], set_=values)
    )


def leave(connection: Connection, owners: Sequence[str]) -> list[tuple[str, UUID]]:
    """Remove children that are known to be gone; returns which of them was loading a version, and for which deployment."""
    rows = connection.execute(
        sa.delete(worker_heartbeat)
        .where(worker_heartbeat.c.owner.in_(owners))
        .returning(worker_heartbeat.c.owner, worker_heartbeat.c.deployments)
    ).all()
    return [
        (row.owner, UUID(deployment_id))
        for row in rows
        for deployment_id, answer in row.deployments.items()
        if answer["state"] == "loading"
    ]


def live(connection: Connection) -> Sequence[sa.Row[Any]]:
    return connection.execute(sa.select(worker_heartbeat).where(_alive()).order_by(worker_heartbeat.c.owner)).all()


def owners_on(connection: Connection, host: str) -> list[str]:
    """The children on a host that have a row, alive or not."""
    return list(
        connection.execute(
            sa.select(worker_heartbeat.c.owner).where(worker_heartbeat.c.owner.startswith(f"{host}:", autoescape=True))
        ).scalars()
    )


def idle_seconds(connection: Connection, worker: str) -> float:
    """How long ago any child of a worker process claimed something, or started."""
    row = worker_heartbeat.c
    return float(
        connection.execute(
            sa.select(
                sa.func.extract("epoch", sa.func.now() - sa.func.max(sa.func.greatest(row.claimed_at, row.started_at)))
            ).where(row.worker == worker)
        ).scalar_one()
        or 0.0
    )


def sweep(connection: Connection) -> None:
    """Forget children that have been silent for an hour, wherever they ran."""
    connection.execute(
        sa.delete(worker_heartbeat).where(worker_heartbeat.c.seen_at < sa.func.now() - sa.text("interval '1 hour'"))
    )


def _alive() -> sa.ColumnElement[bool]:
    return worker_heartbeat.c.seen_at > sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, ALIVE_SECONDS)
