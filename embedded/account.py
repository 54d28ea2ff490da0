"""The account that Postgres runs as when we are root, because it refuses to run as root itself."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from embedded import EmbeddedError


@dataclass(frozen=True)
class Account:
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """`nobody` when this process is root, otherwise None: the server runs as whoever started it.

    Raises:
        EmbeddedError: root on a machine without `nobody`; initdb insists on an account that has a name.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "Postgres does not run as root and this machine has no account `nobody` to run it as: "
            "start as an ordinary user, or set SCOREHOUSE_DATABASE_URL"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def can_reach(path: Path, account: Account) -> bool:
    """Whether the account may enter every folder above `path` and read the file, or enter the folder, `path` itself."""
    resolved = path.resolve()
    if not all(_allows(folder, account, 0o1) for folder in resolved.parents):
        return False
    return _allows(resolved, account, 0o1 if resolved.is_dir() else 0o4)


def _allows(path: Path, account: Account, bits: int) -> bool:
    """Whether the mode grants all of `bits` (4 read, 2 write, 1 enter) to the account."""
    status = path.stat()
    if status.st_uid == account.uid:
        return (status.st_mode >> 6) & bits == bits
    if status.st_gid == account.gid:
        return (status.st_mode >> 3) & bits == bits
    return status.st_mode & bits == bits
