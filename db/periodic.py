"""Periodic runs: a unique (name, slot) makes sure that two beats, or one that catches up, run each slot once."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from db.tables import periodic_run


def this_hour(connection: Connection) -> datetime:
    """The slot of an hourly run, by the database's clock."""
    slot: datetime = connection.execute(sa.select(sa.func.date_trunc("hour", sa.func.now()))).scalar_one()
    return slot


def begin(connection: Connection, name: str, slot: datetime) -> bool:
    """Whether the slot is ours to run; commit before you run it."""
    row = connection.execute(
        insert(periodic_run).values(name=name, slot=slot).on_conflict_do_nothing().returning(periodic_run.c.name)
    ).one_or_none()
    return row is not None


def end(connection: Connection, name: str, slot: datetime, error: str | None = None) -> None:
    connection.execute(
        sa.update(periodic_run)
        .where(periodic_run.c.name == name, periodic_run.c.slot == slot)
        .values(finished_at=sa.func.now(), error=error)
    )


def last_end(connection: Connection, name: str) -> datetime | None:
    """When a periodic run last ended well."""
    moment: datetime | None = connection.execute(
        sa.select(sa.func.max(periodic_run.c.finished_at)).where(
            periodic_run.c.name == name, periodic_run.c.error.is_(None)
        )
    ).scalar_one()
    return moment


def sweep(connection: Connection) -> None:
    """Forget runs older than a month."""
    connection.execute(
        sa.delete(periodic_run).where(periodic_run.c.slot < sa.func.now() - sa.text("interval '31 days'"))
    )
