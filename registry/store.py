"""The artefact store: files by the SHA-256 of their content, in a local folder or wherever fsspec reaches.

A file is never changed once it has its name, so the same content put twice, or by two processes at once, is one file.
No ML library is imported here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from errors import ArtefactRefused, InvalidInput, NotFound, TooLarge

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_BLOCK = 1024 * 1024


class ArtefactStore:
    """Artefacts under `url`: `file:///…`, a path, `s3://bucket/prefix` or any other that fsspec knows."""

    def __init__(self, url: str) -> None:
        # Path.as_uri() writes a space as %20, which fsspec would take for the folder's name.
        self._files, root = fsspec.core.url_to_fs(unquote(urlsplit(url).path) if url.startswith("file:") else url)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._files, LocalFileSystem)

    def put(self, blocks: Iterable[bytes], max_bytes: int) -> tuple[str, int]:
        """Store a stream and return its digest (`sha256:` and 64 hexadecimal digits) and its size in bytes.

        The stream goes to a temporary name and is renamed when it is complete and, in a local store, on the disk.

        Raises:
            TooLarge: the stream has more than `max_bytes`. Nothing is kept, neither then nor when `blocks` raises.
        """
        incoming = f"{self._root}/incoming/{uuid.uuid4().hex}"
        self._files.makedirs(f"{self._root}/incoming", exist_ok=True)
        try:
            digest, size = self._write(incoming, blocks, max_bytes)
            self._publish(incoming, self._place(digest))
        except BaseException:
            if self._files.exists(incoming):
                self._files.rm_file(incoming)
            raise
        return digest, size

    def exists(self, digest: str) -> bool:
        return bool(self._files.exists(self._place(digest)))

    def open(self, digest: str) -> IO[bytes]:
        """The artefact's bytes, not verified; the caller closes the file.

        Raises:
            NotFound: the store has no such artefact.
        """
        try:
            return cast("IO[bytes]", self._files.open(self._place(digest), "rb"))
        except FileNotFoundError as exc:
            raise self._absent(digest) from exc

    def fetch(self, digest: str, cache_dir: Path) -> Path:
        """A local file with the artefact, its hash verified; that of a local store is the stored file itself.

        Raises:
            NotFound: the store has no such artefact.
            ArtefactRefused: its content does not have this digest.
        """
        if self._local:
            path = Path(self._place(digest))
            if not path.exists():
                raise self._absent(digest)
            _verify(path, digest)
            return path
        path = cache_dir / _hexadecimal(digest)
        if not path.exists() or _digest_of(path) != digest:
            self._download(digest, path)
        return path

    def _write(self, place: str, blocks: Iterable[bytes], max_bytes: int) -> tuple[str, int]:
        found, size = hashlib.sha256(), 0
        with self._files.open(place, "wb") as file:
            for block in blocks:
                size += len(block)
                if size > max_bytes:
                    raise TooLarge(
                        f"the artefact has more than the {max_bytes} bytes that are accepted; "
                        "make the model smaller or raise SCOREHOUSE_MAX_ARTEFACT_BYTES"
                    )
                found.update(block)
                file.write(block)
            if self._local:
                file.flush()
                os.fsync(file.fileno())
        return f"sha256:{found.hexdigest()}", size

    def _publish(self, incoming: str, place: str) -> None:
        parent = place.rpartition("/")[0]
        self._files.makedirs(parent, exist_ok=True)
        if not self._local:
            self._files.mv(incoming, place)
            return
        Path(incoming).replace(place)
        _sync_folder(parent)

    def _download(self, digest: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        incoming = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            with self.open(digest) as source, incoming.open("wb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
            _verify(incoming, digest)
            incoming.replace(path)
        finally:
            incoming.unlink(missing_ok=True)

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


def _verify(path: Path, digest: str) -> None:
    found = _digest_of(path)
    if found != digest:
        raise ArtefactRefused(
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
