"""Where a server puts its unix socket: a private folder whose path is short and plain enough for every client."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from embedded.account import Account, can_reach

# sun_path holds 108 bytes on Linux and 104 on macOS, with the closing zero.
MAX_SOCKET_PATH_BYTES = 103
# Postgres splits its socket folders at commas; URLs of the broker are not unquoted alike by all who read them.
PLAIN_PATH = re.compile(r"[A-Za-z0-9._/-]+")


def socket_folder(folder: Path, name: str, account: Account | None = None, *, before: Path | None = None) -> Path:
    """The 0700 folder for the socket `name`: FOLDER/run where that works, else a fresh one in the machine's
    temporary folder, written down in FOLDER/socket_folder so that a restart finds it again.

    Args:
        folder: absolute path of the server's own folder, which exists.
        account: who the server runs as, when that is not us; becomes the owner.
        before: where it was when the server ran last. Clients hold a URL with that path, so it is made again.
    """
    own = folder / "run"
    if _fits(own / name) and (account is None or can_reach(folder, account)):
        _make_private(own, account)
        return own
    record = folder / "socket_folder"
    if before is not None and not before.exists():
        _make_private(before, account)
        record.write_text(str(before))
        return before
    if record.exists():
        recorded = Path(record.read_text())
        if _is_private(recorded, account):
            return recorded
    fresh = Path(tempfile.mkdtemp(prefix="scorehouse-", dir=_short_temporary_folder(name)))
    _make_private(fresh, account)
    record.write_text(str(fresh))
    return fresh


def remove_socket_folder(folder: Path) -> None:
    """Undo `socket_folder` after the server has stopped."""
    record = folder / "socket_folder"
    if record.exists():
        shutil.rmtree(record.read_text(), ignore_errors=True)
        record.unlink()


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES and PLAIN_PATH.fullmatch(str(path)) is not None


def _short_temporary_folder(name: str) -> str:
    configured = tempfile.gettempdir()
    return configured if _fits(Path(configured) / "scorehouse-12345678" / name) else "/tmp"  # noqa: S108 - 0700 inside


def _make_private(path: Path, account: Account | None) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _is_private(path: Path, account: Account | None) -> bool:
    """Whether the folder still is what we made: the machine may have cleaned up, and a stranger taken the name."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    owner = os.geteuid() if account is None else account.uid
    return path.is_dir() and not path.is_symlink() and status.st_uid == owner and status.st_mode & 0o077 == 0
