"""The two slots of a model and its aliases, and the one place where they are moved.

One slot is live and holds production; the other holds what is being deployed, or else what a rollback brings back.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from db import models
from db.tables import deployment, model, model_alias, model_version

SLOTS = ("blue", "green")
# The states of a deployment that is under way.
OPEN = ("warming", "validating")


def held(connection: Connection, row: sa.Row[Any]) -> dict[str, str | None]:
    """The versions in the slots of a model (a row of `model`)."""
    names = models.aliases(connection, row.id)
    under_way = connection.execute(
        sa.select(model_version.c.version)
        .join(deployment, deployment.c.to_version_id == model_version.c.id)
        .where(deployment.c.model_id == row.id, deployment.c.state.in_(OPEN), deployment.c.slot != row.live_slot)
    ).scalar_one_or_none()
    idle = under_way or names.get("previous")
    return {slot: names.get("production") if slot == row.live_slot else idle for slot in SLOTS}


def aliases(connection: Connection, model_id: int) -> dict[str, int]:
    """Ids of versions by alias."""
    rows = connection.execute(
        sa.select(model_alias.c.alias, model_alias.c.version_id).where(model_alias.c.model_id == model_id)
    ).all()
    return {row.alias: row.version_id for row in rows}


def lock(connection: Connection, model_id: int) -> None:
    """Whatever moves aliases comes one after the other: lock the model first, then its deployment."""
    connection.execute(sa.select(model.c.id).where(model.c.id == model_id).with_for_update(key_share=True))


def put_into_production(connection: Connection, model_id: int, version_id: int, *, previous: int | None) -> str:
    """Move the aliases of a model that is locked; returns the slot that is live from now on.

    Args:
        previous: what a rollback brings back; None: nothing.
    """
    current = aliases(connection, model_id)
    slot: str = connection.execute(sa.select(model.c.live_slot).where(model.c.id == model_id)).scalar_one()
    if current.get("production") not in {None, version_id}:
        slot = other(slot)
        connection.execute(sa.update(model).where(model.c.id == model_id).values(live_slot=slot))
    if current.get("production") != version_id:
        models.set_alias(connection, model_id, "production", version_id)
    gone = [sa.and_(model_alias.c.alias == "candidate", model_alias.c.version_id == version_id)]
    if previous is None:
        gone.append(model_alias.c.alias == "previous")
    elif current.get("previous") != previous:
        models.set_alias(connection, model_id, "previous", previous)
    connection.execute(sa.delete(model_alias).where(model_alias.c.model_id == model_id, sa.or_(*gone)))
    return slot


def other(slot: str) -> str:
    return SLOTS[1 - SLOTS.index(slot)]
