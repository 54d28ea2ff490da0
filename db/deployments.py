"""Deployments as they are asked for, undone and looked up. One that is under way is taken further by workers.

    deploy       warming -> validating -> live | failed, see `db.deployment_steps` for what happens in between
    rollback     live at once: what was in production before is warm, and was checked when it was deployed

Nothing here touches production but a rollback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn
from uuid import UUID

import psycopg2
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from db import models, slots, trail
from db.ids import uuid7
from db.slots import OPEN
from db.tables import deployment, deployment_event, model, model_version
from errors import Conflict, NotFound

_ONE_AT_A_TIME = "deployment_open_key"


def deploy(
    connection: Connection,
    tenant: str,
    name: str,
    version: str,
    *,
    by: str,
    why: str | None,
    gate: dict[str, Any] | None = None,
) -> UUID:
    """Ask for a registered version to become production; after COMMIT a permit of the kind `deployment` speeds it up.

    The version that is in production already goes through the same steps, which checks it again, and stays where it is.

    Args:
        gate: the limits of `deployment.gate.Gate` as JSON; None: nothing is replayed.

    Raises:
        NotFound: no such model or version.
        Conflict: the version is not registered, or another deployment of the model is under way.
    """
    target = models.resolve(connection, tenant, name, version)
    found = models.get(connection, tenant, name)
    production = slots.aliases(connection, found.id).get("production")
    slot = found.live_slot if production in {None, target.id} else slots.other(found.live_slot)
    values = {
        "id": uuid7(),
        "model_id": found.id,
        "from_version_id": production,
        "to_version_id": target.id,
        "kind": "deploy",
        "state": "warming",
        "slot": slot,
        "gate": gate,
        "by": by,
        "why": why,
    }
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(deployment).values(**values))
    except IntegrityError as exc:
        if not (isinstance(exc.orig, psycopg2.Error) and exc.orig.diag.constraint_name == _ONE_AT_A_TIME):
            raise
        _tell_of_the_other(connection, name, found.id, exc)
    note(connection, values["id"], "warming", f"{version} goes into the {slot} slot; workers load it", by)
    details = {"deployment": str(values["id"]), "why": why}
    trail.record(connection, tenant=tenant, by=by, act="deployment.begun", target=f"{name}@{version}", details=details)
    return UUID(str(values["id"]))


def rollback(connection: Connection, tenant: str, name: str, *, by: str, why: str | None) -> UUID:
    """Put the version that was in production before back, at once; a deployment that is under way fails.

    Another rollback goes one version further back, never forward to what was rolled back from.

    Raises:
        NotFound: no such model.
        Conflict: there is no previous version.
    """
    found = models.get(connection, tenant, name)
    slots.lock(connection, found.id)
    current = slots.aliases(connection, found.id)
    if "previous" not in current:
        raise Conflict(f"model {name!r} has no previous version to go back to; deploy one by its number")
    end(connection, deployment.c.model_id == found.id, [f"superseded by a rollback of {by}"], by)
    before = _succession(_switches(connection, found.id))[:-1]
    known = before[-1:] == [current["previous"]]
    deployment_id = uuid7()
    slot = slots.put_into_production(
        connection, found.id, current["previous"], previous=before[-2] if known and len(before) > 1 else None
    )
    connection.execute(
        sa.insert(deployment).values(
            id=deployment_id,
            model_id=found.id,
            from_version_id=current["production"],
            to_version_id=current["previous"],
            kind="rollback",
            state="live",
            slot=slot,
            by=by,
            why=why,
            finished_at=sa.func.clock_timestamp(),
        )
    )
    note(connection, deployment_id, "live", f"rolled back into the {slot} slot", by)
    target = models.by_id(connection, current["previous"])
    details = {"deployment": str(deployment_id), "why": why}
    trail.record(
        connection,
        tenant=tenant,
        by=by,
        act="deployment.rolled_back",
        target=f"{name}@{target.version}",
        details=details,
    )
    return deployment_id


def cancel(connection: Connection, tenant: str, name: str, deployment_id: UUID, *, by: str) -> None:
    """End a deployment that is under way; production stays as it is.

    Raises:
        NotFound: no such model, or no such deployment of it.
        Conflict: it is over.
    """
    found = models.get(connection, tenant, name)
    row = one(connection, found.id, name, deployment_id)
    if not end(connection, deployment.c.id == deployment_id, [f"canceled by {by}"], by):
        raise Conflict(f"deployment {deployment_id} is over already; there is nothing left to cancel ({row.to})")
    details = {"deployment": str(deployment_id)}
    trail.record(
        connection, tenant=tenant, by=by, act="deployment.canceled", target=f"{name}@{row.to}", details=details
    )


def expire(connection: Connection, seconds: float) -> None:
    """End the deployments that no worker takes further: there may be none that lives."""
    silent = deployment.c.moved_at < sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    free = sa.or_(deployment.c.lease_until.is_(None), deployment.c.lease_until < sa.func.now())
    reason = f"no worker took it further for {seconds:g} s; `scorehouse doctor` tells what is missing. Mend it and deploy again"
    end(connection, sa.and_(silent, free), [reason], "scorehouse")


def give_up(connection: Connection, deployment_id: UUID, reason: str, by: str) -> None:
    """Fail a deployment that is under way, whoever has it in hand; no harm if it is over."""
    end(connection, deployment.c.id == deployment_id, [reason], by)


def listing(connection: Connection, model_id: int, deployment_id: UUID | None = None) -> Sequence[sa.Row[Any]]:
    """Deployments of a model, newest first, with the names of the versions `to` and `from`."""
    to, origin = model_version.alias("to_version"), model_version.alias("from_version")
    query = (
        sa.select(deployment, to.c.version.label("to"), origin.c.version.label("from"))
        .join(to, to.c.id == deployment.c.to_version_id)
        .outerjoin(origin, origin.c.id == deployment.c.from_version_id)
        .where(deployment.c.model_id == model_id)
    )
    if deployment_id is not None:
        query = query.where(deployment.c.id == deployment_id)
    return connection.execute(query.order_by(deployment.c.created_at.desc(), deployment.c.id.desc()).limit(200)).all()


def one(connection: Connection, model_id: int, name: str, deployment_id: UUID) -> sa.Row[Any]:
    """Raises NotFound."""
    found = listing(connection, model_id, deployment_id)
    if not found:
        raise NotFound(f"model {name!r} has no deployment {deployment_id}")
    return found[0]


def events(connection: Connection, deployment_id: UUID) -> Sequence[sa.Row[Any]]:
    """at, state, message, by; the first one first."""
    query = sa.select(deployment_event).where(deployment_event.c.deployment_id == deployment_id)
    return connection.execute(query.order_by(deployment_event.c.id)).all()


def over(connection: Connection) -> Sequence[sa.Row[Any]]:
    """How many have ended: model, kind, state, number. Models of several tenants that share a name count together."""
    return connection.execute(
        sa.select(model.c.name.label("model"), deployment.c.kind, deployment.c.state, sa.func.count().label("number"))
        .join(model, model.c.id == deployment.c.model_id)
        .where(deployment.c.state.in_(("live", "failed")))
        .group_by(model.c.name, deployment.c.kind, deployment.c.state)
    ).all()


def end(connection: Connection, which: sa.ColumnElement[bool], reasons: Sequence[str], by: str) -> bool:
    """Fail the open deployments among `which`; False when there are none."""
    ended = list(
        connection.execute(
            sa.update(deployment)
            .where(which, deployment.c.state.in_(OPEN))
            .values(
                state="failed",
                reasons=list(reasons),
                lease_until=None,
                owner=None,
                finished_at=sa.func.clock_timestamp(),
            )
            .returning(deployment.c.id)
        ).scalars()
    )
    for deployment_id in ended:
        note(connection, deployment_id, "failed", "; ".join(reasons), by)
    return bool(ended)


def note(connection: Connection, deployment_id: Any, state: str, message: str, by: str) -> None:
    connection.execute(
        sa.insert(deployment_event).values(deployment_id=deployment_id, state=state, message=message, by=by)
    )


def _tell_of_the_other(connection: Connection, name: str, model_id: int, exc: Exception) -> NoReturn:
    other = next((row for row in listing(connection, model_id) if row.state in OPEN), None)
    if other is None:
        raise Conflict(f"another deployment of {name!r} was under way until just now; try again", 1) from exc
    raise Conflict(
        f"deployment {other.id} of version {other.to} by {other.by} is under way: wait for it or cancel it", 2
    ) from exc


def _switches(connection: Connection, model_id: int) -> Iterable[tuple[str, int]]:
    """Kind and version of all deployments that went live, in their order."""
    query = (
        sa.select(deployment.c.kind, deployment.c.to_version_id)
        .where(deployment.c.model_id == model_id, deployment.c.state == "live")
        .order_by(deployment.c.finished_at, deployment.c.id)
    )
    return [(row.kind, row.to_version_id) for row in connection.execute(query)]


def _succession(switches: Iterable[tuple[str, int]]) -> list[int]:
    """The versions that followed each other in production and were not rolled back from; the last one is there now."""
    found: list[int] = []
    for kind, version_id in switches:
        if kind == "rollback" and found[-2:-1] == [version_id]:
            found.pop()
        elif found[-1:] != [version_id]:
            found.append(version_id)
    return found
