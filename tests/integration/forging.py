"""Tokens as an attacker would write them: signed by hand, so that no library keeps us from any of it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from api.tokens import AUDIENCE, ISSUER

OUTSIDE = "https://issuer.example"
OUTSIDE_AUDIENCE = "scores.example"
TENANT = "acme"

NEWEST, FORMER, FORGOTTEN = b"n" * 48, b"f" * 48, b"g" * 48
RSA_KEY = rsa.generate_private_key(65537, 2048)
ED_KEY = ed25519.Ed25519PrivateKey.generate()
EC_KEY = ec.generate_private_key(ec.SECP256R1())

Sign = Callable[[bytes], bytes]


def text64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def hs256(secret: bytes, digest: str = "sha256") -> Sign:
    return lambda message: hmac.new(secret, message, getattr(hashlib, digest)).digest()


def rs256(message: bytes) -> bytes:
    return RSA_KEY.sign(message, padding.PKCS1v15(), hashes.SHA256())


def rs512(message: bytes) -> bytes:
    return RSA_KEY.sign(message, padding.PKCS1v15(), hashes.SHA512())


def ps256(message: bytes) -> bytes:
    return RSA_KEY.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def es256(message: bytes) -> bytes:
    r, s = decode_dss_signature(EC_KEY.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def rsa_pem() -> bytes:
    return RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def rsa_jwk(**more: Any) -> dict[str, Any]:
    numbers = RSA_KEY.public_key().public_numbers()
    n, e = numbers.n.to_bytes(256, "big"), numbers.e.to_bytes(3, "big")
    return {"kty": "RSA", "kid": "idp-rsa", "use": "sig", "alg": "RS256", "n": text64(n), "e": text64(e), **more}


def ed_jwk(**more: Any) -> dict[str, Any]:
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "kid": "idp-ed",
        "x": text64(ED_KEY.public_key().public_bytes_raw()),
        **more,
    }


def ec_jwk(**more: Any) -> dict[str, Any]:
    numbers = EC_KEY.public_key().public_numbers()
    x, y = (text64(value.to_bytes(32, "big")) for value in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "kid": "idp-ec", "alg": "ES256", "x": x, "y": y, **more}


def own_entry(kid: str, secret: bytes) -> dict[str, Any]:
    return {"kty": "oct", "alg": "HS256", "kid": kid, "k": text64(secret)}


def write_key_set(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"keys": list(entries)}))
    return path


def claims(**changed: Any) -> dict[str, Any]:
    """Those of a good token of our own, with some changed; None leaves one out."""
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "tests", "tenant": TENANT, "scope": "admin"}
    whole |= {"iat": now, "exp": now + 300, "jti": "1"}
    return {name: value for name, value in {**whole, **changed}.items() if value is not None}


def written(header: Any, body: Any, sign: Sign) -> str:
    """A token; a header or body that is a text is taken as it is."""
    parts = [part if isinstance(part, str) else json.dumps(part) for part in (header, body)]
    # What UTF-8 cannot encode is left as Python's escape of it.
    message = ".".join(text64(part.encode(errors="surrogatepass")) for part in parts)
    return f"{message}.{text64(sign(message.encode()))}"


def own(header: dict[str, Any] | None = None, *, key: bytes = NEWEST, **changed: Any) -> str:
    """A token of the newest key, with some of it changed."""
    return written({"alg": "HS256", "kid": "newest", **(header or {})}, claims(**changed), hs256(key))


def outside(header: dict[str, Any] | None = None, *, sign: Sign = rs256, **changed: Any) -> str:
    """A token of the outside issuer, with some of it changed."""
    body = claims(iss=OUTSIDE, aud=OUTSIDE_AUDIENCE) | changed
    return written({"alg": "RS256", "kid": "idp-rsa", "typ": "JWT", **(header or {})}, body, sign)
