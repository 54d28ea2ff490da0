"""A file of keys that is read again when it has changed, by every process that uses it and without a restart."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import logs
from api.keys import Key
from errors import ScorehouseError

_log = logs.get(__name__)


class KeyFile:
    """The keys by kid, the newest first. Looking whether the file has changed costs microseconds."""

    def __init__(self, path: Path, read: Callable[[Path], list[Key]]) -> None:
        """Raises what `read` raises: a process does not start with keys that are no good."""
        self._path, self._read = path, read
        self._seen = _state(path)
        self._keys = {key.kid: key for key in read(path)}

    def keys(self) -> Mapping[str, Key]:
        """What the file holds. While it is broken or away, what it held before: an empty key set ends all trust."""
        state = _state(self._path)
        if state != self._seen:
            # Noted before it is read: a change in between is one more change.
            self._seen = state
            try:
                self._keys = {key.kid: key for key in self._read(self._path)}
            except ScorehouseError as exc:
                _log.error("keys_not_read", path=str(self._path), reason=str(exc))
            else:
                _log.info("keys_read", path=str(self._path), kids=list(self._keys))
        return self._keys


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - of each request
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
