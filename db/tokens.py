"""What is known of tokens: which were made, and which are revoked. The tokens themselves are stored nowhere.

A token that asked for others over HTTP takes them with it when it is revoked, and so does the key of such a token.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from db import trail
from db.tables import token
from errors import NotFound

# An expired row is kept for a while, to be looked up when something that it did is asked about.
_KEPT_DAYS = 30


@dataclass(frozen=True, slots=True)
class NewToken:
    """What is recorded of a token; the parent is the token that asked for it, if one did."""

    jti: str
    kid: str
    subject: str
    tenant: str
    scopes: Sequence[str]
    expires_at: datetime
    parent_jti: str | None = None
    parent_kid: str | None = None


def record(connection: Connection, new: NewToken, *, by: str) -> None:
    """Record a token that was just made, in the table and in the audit trail."""
    connection.execute(
        sa.insert(token).values(
            jti=new.jti,
            kid=new.kid,
            subject=new.subject,
            tenant=new.tenant,
            scopes=list(new.scopes),
            expires_at=new.expires_at,
            parent_jti=new.parent_jti,
            parent_kid=new.parent_kid,
            created_by=by,
        )
    )
    details = {
        "subject": new.subject,
        "scopes": list(new.scopes),
        "kid": new.kid,
        "expires_at": new.expires_at.isoformat(),
    }
    trail.record(connection, tenant=new.tenant, by=by, act="token.made", target=new.jti, details=details)


def page(
    connection: Connection,
    tenant: str | None,
    *,
    subject: str | None = None,
    after: str | None = None,
    limit: int,
) -> Sequence[sa.Row[Any]]:
    """Recorded tokens, the last made first; `tenant` None means those of all tenants."""
    query = sa.select(token)
    if tenant is not None:
        query = query.where(token.c.tenant == tenant)
    if subject is not None:
        query = query.where(token.c.subject == subject)
    if after is not None:
        query = query.where(token.c.jti < after)
    return connection.execute(query.order_by(token.c.jti.desc()).limit(limit)).all()


def get(connection: Connection, tenant: str, jti: str) -> sa.Row[Any]:
    """Raises NotFound, also for a token of another tenant."""
    row = connection.execute(sa.select(token).where(token.c.jti == jti, token.c.tenant == tenant)).one_or_none()
    if row is None:
        raise NotFound(f"there is no token {jti} on record; `scorehouse token list` shows those that are")
    return row


def revoke(connection: Connection, tenant: str | None, jti: str, *, by: str, why: str | None) -> int:
    """Revoke a token and all that were made with it; returns how many were good until now.

    Args:
        tenant: whose token it must be; None: anybody's, also one that is not on record, such as an outside issuer's.

    Raises:
        NotFound: the tenant has no such token on record.
    """
    if tenant is None:
        connection.execute(insert(token).values(jti=jti).on_conflict_do_nothing())
    else:
        get(connection, tenant, jti)
    return _revoke(connection, token.c.jti == jti, by=by, why=why)


def revoke_subject(connection: Connection, tenant: str | None, subject: str, *, by: str, why: str | None) -> int:
    """Revoke the tokens on record of a subject, of one tenant or of all; returns how many were good until now."""
    which = token.c.subject == subject
    return _revoke(connection, which if tenant is None else which & (token.c.tenant == tenant), by=by, why=why)


def revoke_children_of_key(connection: Connection, kid: str, *, by: str, why: str | None) -> int:
    """Revoke what was made with tokens of a key that is no longer to be trusted; returns how many."""
    return _revoke(connection, token.c.parent_kid == kid, by=by, why=why)


def revoked(connection: Connection, kids: Collection[str]) -> frozenset[str]:
    """The ids of all tokens that are revoked and would still be good, and of what was made with them.

    Whether the maker is good is asked here again: while it was being revoked, it may have made one more.

    Args:
        kids: the own keys that there are; what was made with a token of another one is no good.
    """
    # An hour more, for clocks that differ from the database's.
    still = sa.or_(token.c.expires_at.is_(None), token.c.expires_at > sa.func.now() - sa.text("interval '1 hour'"))
    ended = sa.or_(token.c.revoked_at.is_not(None), token.c.parent_kid.not_in(list(kids)))
    return frozenset(connection.execute(sa.select(_family(sa.and_(ended, still)).c.jti)).scalars())


def sweep(connection: Connection) -> int:
    """Forget tokens that expired some time ago; returns how many. One whose end is not known stays revoked."""
    past = token.c.expires_at < sa.func.now() - sa.func.make_interval(0, 0, 0, _KEPT_DAYS)
    return connection.execute(sa.delete(token).where(past)).rowcount


def _revoke(connection: Connection, which: sa.ColumnElement[bool], *, by: str, why: str | None) -> int:
    family = _family(which)
    rows = connection.execute(
        sa.update(token)
        .where(token.c.jti.in_(sa.select(family.c.jti)), token.c.revoked_at.is_(None))
        .values(revoked_at=sa.func.now(), revoked_by=by, why=why)
        .returning(token.c.jti, token.c.tenant, token.c.subject)
    ).all()
    for row in rows:
        details = {"subject": row.subject, "why": why}
        trail.record(connection, tenant=row.tenant, by=by, act="token.revoked", target=row.jti, details=details)
    return len(rows)


def _family(which: sa.ColumnElement[bool]) -> sa.CTE:
    """Tokens, and all that were made with one of them."""
    family = sa.select(token.c.jti).where(which).cte("family", recursive=True)
    return family.union(sa.select(token.c.jti).join(family, token.c.parent_jti == family.c.jti))
