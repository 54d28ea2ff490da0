"""What a backup is on disk: a folder, or one ZIP file with the same content. Either is there only when it is complete.

manifest.json            what it is of, and a digest of each file; written last
database.dump            pg_dump's custom format
artefacts/HEXADECIMAL    one for each digest that a version refers to
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, cast

from errors import InvalidInput

MANIFEST = "manifest.json"
DUMP = "database.dump"
FORMAT = 1

_BLOCK = 1024 * 1024

Progress = Callable[[int], None]


class Files(Protocol):
    def open(self, name: str) -> IO[bytes]: ...


class _Folder:
    def __init__(self, path: Path, mode: str) -> None:
        self._path, self._mode = path, mode

    def open(self, name: str) -> IO[bytes]:
        path = self._path / name
        if self._mode == "wb":
            path.parent.mkdir(exist_ok=True)
        return cast("IO[bytes]", path.open(self._mode))


class _Zip:
    """Nothing in it is compressed: it is already."""

    def __init__(self, file: zipfile.ZipFile, mode: str) -> None:
        self._file, self._mode = file, mode

    def open(self, name: str) -> IO[bytes]:
        if self._mode == "wb":
            return self._file.open(name, "w", force_zip64=True)
        try:
            return self._file.open(name)
        except KeyError:
            raise FileNotFoundError(2, "the backup lacks it", name) from None


@contextmanager
def written(path: Path) -> Iterator[Files]:
    """A backup to be written: it takes its name when the block ends, and nothing is left when the block raises.

    Args:
        path: a folder, or a file if it ends in .zip; neither may exist.

    Raises:
        InvalidInput: it exists.
    """
    if path.exists():
        raise InvalidInput(f"{path} exists already; name another")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    try:
        if path.suffix == ".zip":
            descriptor = os.open(
                unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
            )  # it holds all that tenants sent
            with os.fdopen(descriptor, "wb") as raw, zipfile.ZipFile(raw, "w", allowZip64=True) as file:
                yield _Zip(file, "wb")
        else:
            unfinished.mkdir(mode=0o700)
            yield _Folder(unfinished, "wb")
        _on_disk(unfinished)
        unfinished.rename(path)
    except BaseException:
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def read(path: Path) -> Iterator[tuple[dict[str, Any], Files]]:
    """A backup's manifest and its files.

    Raises:
        InvalidInput: it is none, or of a later release.
    """
    if path.is_dir():
        files: Files = _Folder(path, "rb")
        yield _manifest(path, files), files
        return
    try:
        file = zipfile.ZipFile(path)
    except zipfile.BadZipFile as exc:
        raise InvalidInput(f"{path} is no backup, or an incomplete one: {exc}") from exc
    with file:
        files = _Zip(file, "rb")
        yield _manifest(path, files), files


def copy(source: IO[bytes], target: IO[bytes] | None, progress: Progress) -> tuple[str, int]:
    """Copy to the end, or only read without a target; returns the digest (`sha256:…`) and the size of what was read."""
    digest, size = hashlib.sha256(), 0
    for block in blocks(source):
        digest.update(block)
        size += len(block)
        if target is not None:
            target.write(block)
        progress(len(block))
    return f"sha256:{digest.hexdigest()}", size


def blocks(source: IO[bytes]) -> Iterator[bytes]:
    while block := source.read(_BLOCK):
        yield block


def artefact(digest: str) -> str:
    """The name of an artefact's file."""
    return f"artefacts/{digest.removeprefix('sha256:')}"


def _manifest(path: Path, files: Files) -> dict[str, Any]:
    try:
        with files.open(MANIFEST) as file:
            manifest: dict[str, Any] = json.load(file)
    except (FileNotFoundError, ValueError) as exc:
        raise InvalidInput(f"{path} is no backup, or an incomplete one: it has no {MANIFEST} that can be read") from exc
    if manifest.get("format") != FORMAT:
        raise InvalidInput(
            f"{path} has the format {manifest.get('format')}, this release reads {FORMAT}: use a later one"
        )
    return manifest


def _on_disk(path: Path) -> None:
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
