"""Which tokens are believed: one algorithm per key, every claim there and of its type, nothing that the sender chose.

A token names its key by `kid`. Own keys sign for this installation, those of an outside issuer for that one's `iss` and
`aud`; neither can stand in for the other. Nothing of a token is used before its signature was checked, but the kid.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import jwt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api import jwks, keys
from api.key_file import KeyFile
from api.keys import Key
from api.tokens import AUDIENCE, ISSUER, TENANT, Caller
from errors import InvalidInput, Unauthorized
from records.json_text import object_of
from settings import Settings

#: Seconds by which another machine's clock may be ahead of ours, for `iat` and `nbf`. `exp` is taken at its word.
LEEWAY_SECONDS = 30
LONGEST_TOKEN = 8_000
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
# Each names a key of the sender's own, or changes what the signature means.
_REFUSED_HEADERS = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})
_TYPES = ("jwt", "at+jwt")
_SIGNATURES = jwt.PyJWS()
_LAST_SECOND = 253_402_300_799  # of the year 9999

_Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Seconds = Annotated[int, Field(ge=0, le=_LAST_SECOND)]


class Claims(BaseModel):
    """What a token must say. Strict: no number is a text, no true a number, no list one of its members."""

    model_config = ConfigDict(strict=True, frozen=True)

    iss: str
    aud: str
    sub: _Name
    tenant: Annotated[str, Field(pattern=TENANT)]
    scope: Annotated[str, Field(min_length=1)]
    jti: _Name
    iat: _Seconds
    exp: _Seconds
    nbf: _Seconds = 0


@dataclass(frozen=True, slots=True)
class _Source:
    """Keys that are good for one issuer and one audience, and maybe for some tenants only."""

    name: str
    key_file: KeyFile
    issuer: str
    audience: str
    tenants: frozenset[str] | None = None


class Verifier:
    """Checks tokens against the key files, which it reads again when they change."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Raises Unavailable or InvalidInput when a key file is missing or no good, or the issuer's settings are."""
        self._clock = clock
        own = KeyFile(settings.resolved_jwt_key_file(), keys.read)
        self._sources = [_Source("own", own, ISSUER, AUDIENCE), *_outside(settings)]

    def kids(self) -> list[str]:
        """Of the own keys, the one that signs first."""
        return list(self._sources[0].key_file.keys())

    def verify(self, authorization: str | None) -> Caller:
        """The caller of a request, from its Authorization header.

        Raises:
            Unauthorized: no token, or one that is not to be believed; the message says why, but never repeats it.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("send `Authorization: Bearer TOKEN`; `scorehouse token create` makes one")
        return self.read(token.strip())

    def read(self, token: str) -> Caller:
        """The caller that a token speaks for. Raises Unauthorized as `verify` does."""
        header, claims = parsed(token)
        source, key = self._key(header)
        _check_header(header, key)
        try:
            _SIGNATURES.decode(token, key.secret, algorithms=[key.algorithm])
        except jwt.PyJWTError as exc:
            raise _refused("its signature is not that of its key") from exc
        return _caller(_checked(claims, source, self._clock()), source, key)

    def _key(self, header: dict[str, Any]) -> tuple[_Source, Key]:
        kid = header.get("kid")
        for source in self._sources:
            key = source.key_file.keys().get(kid) if isinstance(kid, str) else None
            if key is not None:
                return source, key
        raise _refused("its key is not known here, or no longer")


def _outside(settings: Settings) -> list[_Source]:
    if settings.jwks_file is None:
        return []
    if not settings.jwks_issuer or not settings.jwks_audience:
        raise InvalidInput("SCOREHOUSE_JWKS_FILE needs SCOREHOUSE_JWKS_ISSUER and SCOREHOUSE_JWKS_AUDIENCE: set both")
    if settings.jwks_issuer == ISSUER:
        raise InvalidInput(
            f"SCOREHOUSE_JWKS_ISSUER is {ISSUER!r}, the name of our own tokens' issuer: name the other one"
        )
    named = settings.jwks_tenants
    tenants = None if named is None else frozenset(each.strip() for each in named.split(",") if each.strip())
    for tenant in tenants or ():
        if not re.fullmatch(TENANT, tenant):
            raise InvalidInput(f"SCOREHOUSE_JWKS_TENANTS names {tenant!r}, which is no tenant's name")
    key_file = KeyFile(settings.jwks_file, jwks.read)
    return [_Source("outside", key_file, settings.jwks_issuer, settings.jwks_audience, tenants)]


def parsed(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, not believed yet; only of a token that is written in the one way there is to write it.

    Raises:
        Unauthorized
    """
    segments = token.split(".") if len(token) <= LONGEST_TOKEN else []
    if len(segments) != 3:
        raise _refused("it is no JSON Web Token")
    header, claims, _ = (_decoded(segment) for segment in segments)
    return _object(header), _object(claims)


def _decoded(segment: str) -> bytes:
    """Strict: Python's base64 skips what it does not know, and ignores the bits behind the last byte."""
    if not _SEGMENT.fullmatch(segment) or len(segment) % 4 == 1:
        raise _refused("it is no JSON Web Token")
    content = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(content).rstrip(b"=").decode() != segment:
        raise _refused("it is no JSON Web Token")
    return content


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content.decode(), object_pairs_hook=object_of)
    except (ValueError, RecursionError) as exc:
        raise _refused("it holds no JSON, or a member twice") from exc
    if not isinstance(found, dict):
        raise _refused("it holds no JSON object")
    return found


def _check_header(header: dict[str, Any], key: Key) -> None:
    if header.get("alg") != key.algorithm:
        raise _refused("its algorithm is not that of its key")
    if _REFUSED_HEADERS & header.keys():
        raise _refused("its header wants what is not done here")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise _refused("it is a token of another type")


def _checked(found: dict[str, Any], source: _Source, now: float) -> Claims:
    try:
        claims = Claims.model_validate(found)
    except ValidationError as exc:
        wrong = sorted({str(error["loc"][0]) for error in exc.errors(include_input=False)})
        raise _refused(f"{', '.join(wrong)}: missing, or not of the form that it must have") from exc
    if (claims.iss, claims.aud) != (source.issuer, source.audience):
        raise _refused("it is of another issuer, or for another audience")
    if claims.exp <= now:
        raise Unauthorized("the token is expired; get a new one with `scorehouse token create`")
    if max(claims.iat, claims.nbf) > now + LEEWAY_SECONDS or claims.iat > claims.exp:
        raise _refused("it is not valid yet; compare the clocks of both machines")
    if source.tenants is not None and claims.tenant not in source.tenants:
        raise _refused("its issuer may not speak for that tenant")
    return claims


def _caller(claims: Claims, source: _Source, key: Key) -> Caller:
    scopes = frozenset(claims.scope.split())
    return Caller(claims.sub, claims.tenant, scopes, claims.jti, key.kid, source.name == "own", claims.exp)


def _refused(reason: str) -> Unauthorized:
    return Unauthorized(f"the token is not valid here: {reason}; get a new one from whoever runs this installation")
