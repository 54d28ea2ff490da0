"""A lock on a folder that the kernel releases when its last holder dies, so that none of them can be stale.

Passed on to a child (`descriptor` in `pass_fds`), the lock lives as long as the child and *its* children: that is how a
start can tell that the backends of a killed Postgres are still about.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FolderLock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The open file that holds the lock.

        Raises:
            RuntimeError: it is not held.
        """
        if self._descriptor is None:
            raise RuntimeError(f"{self._path} is not locked by this object")
        return self._descriptor

    def acquire(self) -> bool:
        """Try to take the lock, without waiting; True when it is ours. Not inherited unless passed on."""
        self.release()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go of our hold. Children that it was passed on to keep theirs."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
