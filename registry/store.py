"""The artefact store: files by the SHA-256 of their content, in a local folder or in an object store that fsspec knows.

A file is never changed once it has its name, so the same content put twice, or by two processes at once, is one file.
A host fetches and verifies an artefact once, however many of its processes ask for it at the same time. No ML library
is imported here.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from errors import ArtefactRefused, InvalidInput, NotFound, ScorehouseError, TooLarge, Unavailable

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_BLOCK = 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT}
# s3fs retries by itself; with the retries of botocore below it, a worker would be silent for longer than a heartbeat may.
_OPTIONS = {"s3": {"config_kwargs": {"connect_timeout": 3, "read_timeout": 30, "retries": {"total_max_attempts": 1}}}}


class ArtefactStore:
    """Artefacts under `url`: a path, `file:///…`, `s3://bucket/prefix`, or another object store that fsspec knows.

    The bucket must be there. Every method raises `Unavailable` when an object store cannot be reached or refuses, or when the
    disk that it writes to is full.
    """

    def __init__(self, url: str) -> None:
        # Path.as_uri() writes a space as %20, which fsspec would take for the folder's name.
        place = unquote(urlsplit(url).path) if url.startswith("file:") else url
        self._files, root = fsspec.core.url_to_fs(place, **_OPTIONS.get(urlsplit(url).scheme, {}))
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._files, LocalFileSystem)

    def put(self, blocks: Iterable[bytes], max_bytes: int) -> tuple[str, int]:
        """Store a stream and return its digest (`sha256:` and 64 hexadecimal digits) and its size in bytes.

        The stream goes to a temporary name and is renamed when it is complete and, in a local store, on the disk.

        Raises:
            TooLarge: the stream has more than `max_bytes`. Nothing is kept, neither then nor when `blocks` raises.
        """
        incoming = f"{self._root}/incoming/{uuid.uuid4().hex}"
        with self._reached(), _with_room():
            self._make_folder(f"{self._root}/incoming")
            try:
                digest, size = self._write(incoming, blocks, max_bytes)
                self._publish(incoming, self._place(digest))
            except BaseException:
                with suppress(FileNotFoundError):
                    self._files.rm_file(incoming)
                raise
        return digest, size

    def exists(self, digest: str) -> bool:
        place = self._place(digest)
        with self._reached():
            return bool(self._files.exists(place))

    def open(self, digest: str) -> IO[bytes]:
        """The artefact's bytes, not verified; the caller closes the file.

        Raises:
            NotFound: the store has no such artefact.
        """
        place = self._place(digest)
        with self._reached():
            try:
                return cast("IO[bytes]", self._files.open(place, "rb"))
            except FileNotFoundError as exc:
                raise self._absent(digest) from exc

    def fetch(self, digest: str, cache_dir: Path) -> Path:
        """A local file with the artefact; that of a local store is the stored file itself.

        The first process of a host that asks downloads and verifies it, the others wait for that. Afterwards the file
        is verified again when it is not the one that was: a cached file that was damaged is then downloaded anew.

        Raises:
            NotFound: the store has no such artefact.
            ArtefactRefused: its content does not have this digest.
            Unavailable: also when the disk of `cache_dir` is full.
        """
        place = self._place(digest)
        path = Path(place) if self._local else cache_dir / _hexadecimal(digest)
        with _with_room(), _only_one(cache_dir / f"{_hexadecimal(digest)}.verified") as verified:
            if not path.exists():
                self._bring(digest, path)
            elif verified.read_text() != _identity(path) and _digest_of(path) != digest:
                if self._local:
                    raise _damaged(digest, _digest_of(path))
                self._bring(digest, path)
            verified.write_text(_identity(path))
        return path

    def sweep(self, older_seconds: float) -> int:
        """Remove from a local store what killed uploads left behind and nobody has written to for so long; returns how many
        files. In a bucket that is for its lifecycle to do.

        Raises:
            OSError: this process may not.
        """
        if not self._local:
            return 0
        found = 0
        for path in Path(f"{self._root}/incoming").glob("*"):
            with suppress(FileNotFoundError):  # another sweep was faster, or the upload is complete
                if time.time() - path.stat().st_mtime > older_seconds:
                    path.unlink()
                    found += 1
        return found

    def _write(self, place: str, blocks: Iterable[bytes], max_bytes: int) -> tuple[str, int]:
        found, size = hashlib.sha256(), 0
        with self._files.open(place, "wb") as file:
            for block in blocks:
                size += len(block)
                if size > max_bytes:
                    raise TooLarge(f"there are more than the {max_bytes:,} bytes that are accepted")
                found.update(block)
                file.write(block)
            if self._local:
                file.flush()
                os.fsync(file.fileno())
        return f"sha256:{found.hexdigest()}", size

    def _publish(self, incoming: str, place: str) -> None:
        parent = place.rpartition("/")[0]
        self._make_folder(parent)
        if not self._local:
            self._files.mv(incoming, place)
            return
        Path(incoming).replace(place)
        _sync_folder(parent)

    def _make_folder(self, folder: str) -> None:
        if self._local:  # an object store has none, and s3fs would make the bucket of a misspelt URL
            self._files.makedirs(folder, exist_ok=True)

    def _bring(self, digest: str, path: Path) -> None:
        """Download to `path` what proves to have the digest."""
        if self._local:
            raise self._absent(digest)
        incoming = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            with self._reached(), self.open(digest) as source, incoming.open("wb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
            found = _digest_of(incoming)
            if found != digest:
                raise _damaged(digest, found)
            incoming.replace(path)
        finally:
            incoming.unlink(missing_ok=True)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """What goes wrong in an object store as `Unavailable`; each of them has errors of its own."""
        try:
            yield
        except ScorehouseError:
            raise
        except Exception as exc:
            if self._local:
                raise
            raise Unavailable(
                f"the artefact store {self._files.unstrip_protocol(self._root)} did not do what was asked "
                f"({type(exc).__name__}: {exc}); check SCOREHOUSE_ARTEFACT_URL, the bucket, and the credentials"
            ) from exc

    def _place(self, digest: str) -> str:
        name = _hexadecimal(digest)
        return f"{self._root}/sha256/{name[:2]}/{name}"

    def _absent(self, digest: str) -> NotFound:
        return NotFound(f"the artefact store has no {digest}; register the model again, or restore the store")


def _hexadecimal(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InvalidInput(f"{digest!r} is not a digest; expected sha256: and 64 hexadecimal digits in lower case")
    return match[1]


@contextmanager
def _with_room() -> Iterator[None]:
    """A full disk as `Unavailable`: somebody will make room, and what was asked for then works."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _FULL:
            raise
        raise Unavailable(f"a disk is full ({exc.filename or 'artefacts'}): make room, and try again") from exc


@contextmanager
def _only_one(stamp: Path) -> Iterator[Path]:
    """Hold the lock of a stamp file, so that one process of this host is at it; the file is there, at first empty."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    with stamp.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, or its process dies
        yield stamp


def _identity(path: Path) -> str:
    """Another one after every write to the file, and for every other file."""
    found = path.stat()
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _damaged(digest: str, found: str) -> ArtefactRefused:
    return ArtefactRefused(
        f"the artefact {digest} has the content of {found}: it was changed or damaged; "
        "restore it from a backup, or register the model again"
    )


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _sync_folder(folder: str) -> None:
    descriptor: Any = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
