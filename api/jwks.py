"""The public keys of an outside issuer, from a JSON Web Key Set in a file.

Each key is used with one algorithm: the one that it states, or else the one of its kind.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt

from api.keys import Key
from errors import InvalidInput, Unavailable

# By kind of key and, where there are several, by curve.
_ALGORITHMS = {("RSA", None): "RS256", ("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256"}
_SMALLEST_RSA = 2048


def read(path: Path) -> list[Key]:
    """The keys of a file that sign; those for encryption are left out. The set may be empty: then nobody is believed.

    Raises:
        Unavailable: there is no such file, or it cannot be read.
        InvalidInput: it is no key set, or holds a key that must not be believed.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise Unavailable(
            f"the key set SCOREHOUSE_JWKS_FILE={path} cannot be read ({type(exc).__name__}): put it there, or unset it"
        ) from exc
    try:
        entries = json.loads(text)["keys"]
    except (ValueError, KeyError, TypeError):
        raise InvalidInput(f'{path} is no JSON Web Key Set: it must be like {{"keys": [{{…}}]}}') from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidInput(f"{path} is no JSON Web Key Set: `keys` must be a list of objects")
    keys = [_key(path, entry) for entry in entries if entry.get("use", "sig") == "sig"]
    if len({key.kid for key in keys}) < len(keys):
        raise InvalidInput(f"{path} has two keys of one kid: remove one of them")
    return keys


def _key(path: Path, entry: dict[str, Any]) -> Key:
    kid = entry.get("kid")
    if not isinstance(kid, str) or not kid:
        raise InvalidInput(f"a key in {path} has no kid, by which tokens name it: add one")
    where = f"the key {kid!r} in {path}"
    if entry.get("kty") == "oct":
        raise InvalidInput(
            f"{where} is a shared secret (kty oct): whoever checks tokens with it could make them. "
            "Let the issuer sign with RS256, EdDSA or ES256"
        )
    if "d" in entry:
        raise InvalidInput(f"{where} is a private key: remove it, and make a new pair, since this one was given away")
    curve = entry.get("crv") if entry.get("kty") != "RSA" else None
    algorithm = _ALGORITHMS.get((entry.get("kty"), curve))  # type: ignore[arg-type]  # what is no text is not found
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        raise InvalidInput(
            f"{where} is of a kind that is not accepted; RS256 (RSA), EdDSA (Ed25519) and ES256 (P-256) are"
        )
    try:
        public = jwt.PyJWK(entry, algorithm).key
    except jwt.exceptions.PyJWTError as exc:
        raise InvalidInput(f"{where} is broken: {exc}") from exc
    if algorithm == "RS256" and public.key_size < _SMALLEST_RSA:
        raise InvalidInput(f"{where} has {public.key_size} bits; RSA keys need at least {_SMALLEST_RSA}")
    return Key(kid, algorithm, public)
