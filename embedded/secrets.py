"""The data folder and the secrets in it, made on the first start and never printed."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from embedded import EmbeddedError


@dataclass(frozen=True)
class Secrets:
    jwt_key_file: Path
    flower_password_file: Path

    def flower_password(self) -> str:
        return self.flower_password_file.read_text().strip()


def ensure_secrets(data_dir: Path) -> Secrets:
    """The secrets of this data folder, each in a file that only we can read; made unless it exists.

    Raises:
        EmbeddedError: the folder cannot be made, or is not a folder.
    """
    ensure_data_dir(data_dir)
    found = Secrets(data_dir / "jwt.key", data_dir / "flower.password")
    _ensure_secret(found.jwt_key_file, 48)
    _ensure_secret(found.flower_password_file, 18)
    return found


def ensure_data_dir(data_dir: Path) -> None:
    """Make the data folder private to us; one that exists keeps its mode, since it may hold more than our files."""
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        # Root's Postgres runs as another account, which must be able to pass through; it still cannot list the folder.
        data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700)
    except FileExistsError:
        if not data_dir.is_dir():
            raise EmbeddedError(f"the data folder {data_dir} is a file: name a folder with --data-dir") from None
    except OSError as error:
        raise EmbeddedError(
            f"cannot make the data folder {data_dir}: {error.strerror}; try another --data-dir"
        ) from error


def write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, whole or not at all, in place of the one that may be there."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _ensure_secret(path: Path, random_bytes: int) -> None:
    """Linked into place when complete: of two starts at once one wins, and neither reads half a secret."""
    if path.exists():
        return
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(random_bytes))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        os.unlink(fresh)  # noqa: PTH108 - a plain name from mkstemp
