"""The audit trail: who did which privileged act, to what, when. Entries are added, never changed.

An entry is written in the transaction of its act: neither stands without the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Literal, get_args
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from db.ids import uuid7
from db.tables import audit_trail

Act = Literal[
    "alert.acknowledged",
    "alert.suppressed",
    "audit_policy.changed",
    "backup.made",
    "backup.restored",
    "deployment.begun",
    "deployment.canceled",
    "deployment.rolled_back",
    "key.forgotten",
    "key.rotated",
    "quota.changed",
    "token.made",
    "token.revoked",
    "training.asked",
    "training_policy.changed",
    "version.registered",
]
ACTS: tuple[str, ...] = get_args(Act)

#: Set by the API for each request: the id of its token, so that an act can be told from others of the same subject.
token_in_use: ContextVar[str | None] = ContextVar("token_in_use", default=None)


def record(
    connection: Connection,
    *,
    tenant: str | None,
    by: str,
    act: Act,
    target: str,
    details: dict[str, Any] | None = None,
) -> None:
    """Add an entry to the transaction of the act.

    Args:
        tenant: whose data it concerns; None: the installation.
        by: the token's subject, the operating-system user of a command, or what acts by itself, such as `training`.
        target: what it was done to, for example `flights@1.2.0`.
        details: JSON; never a secret or a record.
    """
    connection.execute(
        sa.insert(audit_trail).values(
            id=uuid7(),
            tenant=tenant,
            by=by,
            act=act,
            target=target,
            details=details or {},
            token_jti=token_in_use.get(),
        )
    )


def page(
    connection: Connection,
    tenant: str | None,
    *,
    act: str | None = None,
    by: str | None = None,
    after: UUID | None = None,
    limit: int,
) -> Sequence[sa.Row[Any]]:
    """Entries, the last one first; `tenant` None means those of all tenants and of the installation.

    Args:
        after: the id of the last entry of the page before.
    """
    query = sa.select(audit_trail)
    if tenant is not None:
        query = query.where(audit_trail.c.tenant == tenant)
    if act is not None:
        query = query.where(audit_trail.c.act == act)
    if by is not None:
        query = query.where(audit_trail.c.by == by)
    if after is not None:
        query = query.where(_older_than(after))
    return connection.execute(query.order_by(audit_trail.c.at.desc(), audit_trail.c.id.desc()).limit(limit)).all()


def sweep(connection: Connection, *, days: int) -> int:
    """Remove entries that are older; returns how many. Nothing younger than 30 days goes, whatever is asked for."""
    return int(connection.execute(sa.select(sa.func.audit_trail_expire(days))).scalar_one())


def _older_than(entry_id: UUID) -> sa.ColumnElement[bool]:
    """Ids alone do not tell: within a millisecond they are in no order."""
    other = audit_trail.alias()
    at = sa.select(other.c.at).where(other.c.id == entry_id).scalar_subquery()
    return sa.or_(audit_trail.c.at < at, sa.and_(audit_trail.c.at == at, audit_trail.c.id < entry_id))
