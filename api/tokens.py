"""Bearer tokens: JSON Web Tokens signed with the installation's newest key, and the admin token of the first start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt

from api import keys
from db.ids import uuid7
from embedded.secrets import write_private
from errors import Forbidden
from settings import Settings

ISSUER = "scorehouse"
AUDIENCE = "scorehouse-api"
SCOPES = (
    "jobs:read",
    "jobs:write",
    "labels:write",
    "models:read",
    "models:write",
    "deploy",
    "audits:read",
    "metrics:read",
    "admin",
)
# Metrics tell of all tenants, so they are not among what a tenant's admin may do.
METRICS = "metrics:read"
BEYOND_ADMIN = frozenset({METRICS})
#: Of the token that the command line finds: whoever runs the installation looks at its metrics too.
ADMIN_SCOPES = ("admin", METRICS)
DEFAULT_TENANT = "default"
TENANT = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
LONGEST_SUBJECT = 200

_ADMIN_DAYS = 365


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as far as a valid token says.

    Attributes:
        jti: id of the token; kid: of the key that signed it; own: whether that key is ours, not an outside issuer's.
        expires: Unix time in seconds.
    """

    subject: str
    tenant: str
    scopes: frozenset[str]
    jti: str
    kid: str
    own: bool
    expires: int

    def has(self, scope: str) -> bool:
        """`admin` has all that concern its tenant alone."""
        return scope in self.scopes or ("admin" in self.scopes and scope not in BEYOND_ADMIN)

    def require(self, scope: str) -> None:
        """Raises Forbidden unless the token has the scope."""
        if not self.has(scope):
            raise Forbidden(f"this needs a token with the scope {scope!r}; yours has: {' '.join(sorted(self.scopes))}")


@dataclass(frozen=True, slots=True)
class Made:
    """A new token: its text, which is a secret and stored nowhere, and what it says."""

    text: str
    jti: str
    kid: str
    subject: str
    tenant: str
    scopes: list[str]
    expires_at: datetime

    def __repr__(self) -> str:
        return f"Made({self.jti!r})"


def make_token(
    settings: Settings,
    *,
    subject: str,
    tenant: str = DEFAULT_TENANT,
    scopes: Sequence[str],
    ttl: timedelta,
    longest: timedelta | None = None,
) -> Made:
    """Sign a token.

    Args:
        longest: allowed life, if it is not SCOREHOUSE_MAX_TOKEN_DAYS.

    Raises:
        ValueError: an unknown scope, a name that cannot be one, or a life that is not positive or too long.
        Unavailable: this installation has no signing key yet.
        InvalidInput: the key file is no good.
    """
    _check_names(subject, tenant, scopes)
    bound = longest or timedelta(days=settings.max_token_days)
    if ttl <= timedelta(0):
        raise ValueError("a token must live for some time; give a positive life, for example 30d")
    if ttl > bound:
        raise ValueError(f"a token lives at most {bound.days} days (SCOREHOUSE_MAX_TOKEN_DAYS); ask for less")
    key = keys.read(settings.resolved_jwt_key_file())[0]
    now = datetime.now(UTC).replace(microsecond=0)
    expires_at, jti, kept = now + ttl, str(uuid7()), sorted(set(scopes))
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "tenant": tenant,
        "scope": " ".join(kept),
    }
    claims |= {"iat": now, "exp": expires_at, "jti": jti}
    text = jwt.encode(claims, key.secret, algorithm=key.algorithm, headers={"kid": key.kid})
    return Made(text, jti, key.kid, subject, tenant, kept, expires_at)


def create_token(
    settings: Settings, *, subject: str, tenant: str = DEFAULT_TENANT, scopes: Sequence[str], ttl: timedelta
) -> str:
    """The text of a token that is recorded nowhere. Raises as `make_token`."""
    return make_token(settings, subject=subject, tenant=tenant, scopes=scopes, ttl=ttl).text


def make_admin_token(settings: Settings) -> Made:
    """Make DATA_DIR/admin.token (0600) anew; the command line picks it up. Raises as `make_token`."""
    life = min(timedelta(days=_ADMIN_DAYS), timedelta(days=settings.max_token_days))
    made = make_token(settings, subject="admin", scopes=ADMIN_SCOPES, ttl=life)
    write_private(admin_token_file(settings), made.text + "\n")
    return made


def admin_token_file(settings: Settings) -> Path:
    return settings.data_dir / "admin.token"


def _check_names(subject: str, tenant: str, scopes: Sequence[str]) -> None:
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise ValueError(f"unknown or missing scopes {' '.join(unknown)!r}; there are: {' '.join(SCOPES)}")
    if not re.fullmatch(TENANT, tenant):
        raise ValueError(f"{tenant!r} is no tenant's name: it has 1 to 63 letters (A to Z), digits, `.`, `_` or `-`")
    if not 1 <= len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
        raise ValueError(f"a subject has 1 to {LONGEST_SUBJECT} printable characters; {subject!r} is none")
