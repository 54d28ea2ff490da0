"""Bearer tokens: JSON Web Tokens signed with the installation's own key, and the admin token of the first start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt

from errors import Forbidden, Unauthorized
from settings import Settings

ALGORITHM = "HS256"
ISSUER = "scorehouse"
AUDIENCE = "scorehouse-api"
KEY_ID = "local"
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
# Of the whole installation: `admin` is all of what belongs to a tenant.
METRICS = "metrics:read"
DEFAULT_TENANT = "default"

_ADMIN_DAYS = 365
_RENEW_DAYS = 30
_ADMIN_SCOPES = ["admin", METRICS]
_REQUIRED = ["exp", "iat", "iss", "aud", "sub", "tenant", "scope", "jti"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as far as a valid token says."""

    subject: str
    tenant: str
    scopes: frozenset[str]

    def require(self, scope: str) -> None:
        """Raises Forbidden unless the token has the scope; `admin` has all of a tenant's."""
        if scope not in self.scopes and ("admin" not in self.scopes or scope == METRICS):
            raise Forbidden(f"this needs a token with the scope {scope!r}; yours has: {' '.join(sorted(self.scopes))}")


def create_token(
    settings: Settings, *, subject: str, tenant: str = DEFAULT_TENANT, scopes: Sequence[str], ttl: timedelta
) -> str:
    """Sign a token.

    Raises:
        ValueError: an unknown scope, or a life that is not positive.
        FileNotFoundError: this installation has no signing key yet.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise ValueError(f"unknown or missing scopes {' '.join(unknown)!r}; there are: {' '.join(SCOPES)}")
    if ttl <= timedelta(0):
        raise ValueError("a token must live for some time; give a positive --ttl, for example 30d")
    now = datetime.now(UTC)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "tenant": tenant,
        "scope": " ".join(sorted(set(scopes))),
        "iat": now,
        "exp": now + ttl,
        "jti": str(uuid4()),
    }
    return jwt.encode(claims, _key(settings), algorithm=ALGORITHM, headers={"kid": KEY_ID})


class Verifier:
    """Checks tokens against the key that was read when the process started."""

    def __init__(self, settings: Settings) -> None:
        self._key = _key(settings)

    def verify(self, authorization: str | None) -> Caller:
        """The caller of a request, from its Authorization header.

        Raises:
            Unauthorized: no token, or one that is not to be believed; the message says why, but never repeats it.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("send `Authorization: Bearer TOKEN`; `scorehouse token create` makes one")
        token = token.strip()
        try:
            header = jwt.get_unverified_header(token)
            if header.get("kid") != KEY_ID or {"jwk", "jku", "x5u", "x5c", "crit"} & header.keys():
                raise Unauthorized("the token was not made by this installation; get one from its operator")
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=AUDIENCE,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError as exc:
            raise Unauthorized("the token is expired; get a new one with `scorehouse token create`") from exc
        except jwt.InvalidTokenError as exc:
            raise Unauthorized(f"the token is not valid here ({type(exc).__name__}); get a new one") from exc
        subject, tenant, scope = claims["sub"], claims["tenant"], claims["scope"]
        if not all(isinstance(value, str) and value for value in (subject, tenant, scope)):
            raise Unauthorized("the token's sub, tenant and scope must be texts; get a new one")
        return Caller(subject, tenant, frozenset(scope.split()))


def ensure_admin_token(settings: Settings) -> None:
    """Write DATA_DIR/admin.token (0600) if it is absent about to expire, or of an earlier release; the command line picks it up."""
    path = settings.data_dir / "admin.token"
    if path.exists() and _lives_long_enough(path.read_text().strip(), settings):
        return
    token = create_token(settings, subject="admin", scopes=_ADMIN_SCOPES, ttl=timedelta(days=_ADMIN_DAYS))
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    temporary.replace(path)


def _lives_long_enough(token: str, settings: Settings) -> bool:
    try:
        claims = jwt.decode(token, _key(settings), algorithms=[ALGORITHM], issuer=ISSUER, audience=AUDIENCE)
    except jwt.InvalidTokenError:
        return False
    lives = datetime.fromtimestamp(claims["exp"], UTC) > datetime.now(UTC) + timedelta(days=_RENEW_DAYS)
    return lives and set(_ADMIN_SCOPES) <= set(claims["scope"].split())


def _key(settings: Settings) -> str:
    return settings.resolved_jwt_key_file().read_text().strip()
