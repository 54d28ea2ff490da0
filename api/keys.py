"""The installation's own signing keys: the newest signs, the others verify what they signed until they are forgotten.

The file holds either one line, which is the key `local` of the first start, or a JSON key set, newest first:

    {"keys": [{"kty": "oct", "alg": "HS256", "kid": "20261124-5f0c", "k": "…", "iat": 1795500000}, …]}

It is replaced as a whole, so a reader sees the former or the new one.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from errors import Conflict, InvalidInput, NotFound, Unavailable

ALGORITHM = "HS256"
FIRST_KEY = "local"
_BYTES = 48
# RFC 7518, 3.2: no shorter than the hash; a guessable key signs tokens for anybody.
_SHORTEST = 32


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the one algorithm that it is used with. Never printed: `secret` is what it says."""

    kid: str
    algorithm: str
    secret: Any
    created_at: datetime | None = None

    def __repr__(self) -> str:
        return f"Key({self.kid!r}, {self.algorithm})"


def read(path: Path) -> list[Key]:
    """The keys of a file, newest first.

    Raises:
        Unavailable: there is no such file, or it cannot be read.
        InvalidInput: it holds no good key; the message never repeats what it holds.
    """
    try:
        text, made = path.read_text().strip(), datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, UnicodeDecodeError) as exc:
        raise Unavailable(
            f"there is no signing key at {path} that can be read ({type(exc).__name__}): start a stack once with "
            "`scorehouse up`, or name the key of the API with SCOREHOUSE_JWT_KEY_FILE"
        ) from exc
    keys = _key_set(path, text) if text.startswith("{") else [Key(FIRST_KEY, ALGORITHM, text.encode(), made)]
    for key in keys:
        if len(key.secret) < _SHORTEST:
            raise InvalidInput(f"the signing key {key.kid!r} in {path} is shorter than {_SHORTEST} bytes; make another")
    return keys


def rotate(path: Path) -> str:
    """Make a new signing key and return its kid; the former ones go on verifying.

    Raises:
        Unavailable, InvalidInput: as `read`.
        OSError: the file cannot be replaced.
    """
    with _turn(path):
        now = datetime.now(UTC)
        fresh = Key(f"{now:%Y%m%d}-{secrets.token_hex(4)}", ALGORITHM, secrets.token_bytes(_BYTES), now)
        _write(path, [fresh, *read(path)])
    return fresh.kid


def forget(path: Path, kid: str) -> None:
    """End a key, and with it every token that it signed.

    Raises:
        NotFound: there is no such key.
        Conflict: it is the one that signs.
        Unavailable, InvalidInput, OSError: as `rotate`.
    """
    with _turn(path):
        keys = read(path)
        if kid not in {key.kid for key in keys}:
            raise NotFound(f"there is no key {kid!r}; there are: {', '.join(key.kid for key in keys)}")
        if keys[0].kid == kid:
            raise Conflict(f"the key {kid!r} signs new tokens: make another first with `scorehouse token rotate`")
        _write(path, [key for key in keys if key.kid != kid])


def _key_set(path: Path, text: str) -> list[Key]:
    wrong = f"the key file {path} is no key set"
    try:
        entries = json.loads(text)["keys"]
        keys = [_from_entry(entry) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        # Not `from exc`: what could not be parsed is a secret.
        raise InvalidInput(
            f'{wrong}: it is one line, or {{"keys": [{{"kty": "oct", "alg": "HS256", "kid": …, "k": …}}]}}'
        ) from None
    kids = [key.kid for key in keys]
    if not keys or len(set(kids)) < len(kids):
        raise InvalidInput(f"{wrong}: it holds no key, or two of one kid")
    return keys


def _from_entry(entry: dict[str, Any]) -> Key:
    kid, iat = entry["kid"], entry.get("iat")
    if entry["kty"] != "oct" or entry["alg"] != ALGORITHM or not isinstance(kid, str) or not kid:
        raise ValueError
    padded = entry["k"] + "=" * (-len(entry["k"]) % 4)
    return Key(
        kid, ALGORITHM, base64.b64decode(padded, b"-_", validate=True), iat and datetime.fromtimestamp(int(iat), UTC)
    )


def _entry(key: Key) -> dict[str, Any]:
    entry = {"kty": "oct", "alg": key.algorithm, "kid": key.kid}
    if key.created_at is not None:
        entry["iat"] = int(key.created_at.timestamp())  # type: ignore[assignment]  # the others are texts
    return entry | {"k": base64.urlsafe_b64encode(key.secret).rstrip(b"=").decode()}


def _write(path: Path, keys: list[Key]) -> None:
    """Whole or not at all, and with the rights that the file had: containers read theirs as another user."""
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            json.dump({"keys": [_entry(key) for key in keys]}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """One change at a time; the lock is the folder's, since the file itself is replaced."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
