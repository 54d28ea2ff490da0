"""Tokens that are made and recorded in one step, and the admin token that the first start makes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection

from api.tokens import ADMIN_SCOPES, Caller, Made, admin_token_file, make_admin_token, make_token
from api.verification import Verifier
from db import tokens
from db.tokens import NewToken
from errors import Unauthorized
from settings import Settings

_RENEW_DAYS = 30


def issue(
    connection: Connection,
    settings: Settings,
    *,
    by: str,
    subject: str,
    tenant: str,
    scopes: Sequence[str],
    ttl: timedelta,
    parent: Caller | None = None,
) -> Made:
    """Make a token and record it; `parent` is the caller whose token asks for it. Raises as `make_token`."""
    made = make_token(settings, subject=subject, tenant=tenant, scopes=scopes, ttl=ttl)
    _record(connection, made, by=by, parent=parent)
    return made


def ensure_admin_token(connection: Connection, settings: Settings, *, by: str) -> None:
    """Make DATA_DIR/admin.token unless it is good for some time yet, and for all that this release gives it. Raises as `make_token`, and as `Verifier`."""
    if not _is_good(connection, settings):
        _record(connection, make_admin_token(settings), by=by)


def _is_good(connection: Connection, settings: Settings) -> bool:
    try:
        verifier = Verifier(settings)
        found = verifier.read(admin_token_file(settings).read_text().strip())
    except (FileNotFoundError, Unauthorized):
        return False
    lasts = found.expires > time.time() + timedelta(days=_RENEW_DAYS).total_seconds()
    return lasts and found.scopes >= set(ADMIN_SCOPES) and found.jti not in tokens.revoked(connection, verifier.kids())


def _record(connection: Connection, made: Made, *, by: str, parent: Caller | None = None) -> None:
    new = NewToken(
        jti=made.jti,
        kid=made.kid,
        subject=made.subject,
        tenant=made.tenant,
        scopes=made.scopes,
        expires_at=made.expires_at,
        parent_jti=None if parent is None else parent.jti,
        parent_kid=None if parent is None else parent.kid,
    )
    tokens.record(connection, new, by=by)
