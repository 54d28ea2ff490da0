"""Request bodies that are read from disk or from a stream while they are sent, one block at a time.

A body knows its size when that can be told beforehand (else the request is sent chunked), and whether it can be sent again
from its start, which is what a retry needs.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from scorehouse_client.errors import SourceFailed

# Fewer, larger blocks spare system calls and calls of the progress function; larger ones than this gain nothing.
BLOCK_BYTES = 1 << 20

Source = str | os.PathLike[str] | BinaryIO
Block = bytes | memoryview


class Body(Protocol):
    @property
    def size(self) -> int | None:
        """Bytes in total, None when only the end of the stream will tell."""

    @property
    def restartable(self) -> bool:
        """Whether `blocks` can start again from the first byte."""

    def blocks(self) -> Iterator[Block]:
        """The bytes; a block is valid until the next one is taken.

        Raises:
            SourceFailed: it cannot be read, or is not what it was when its size was taken.
        """


def body_of(source: Source) -> Body:
    """A body for a path or for a file that is open for reading bytes."""
    return FileBody(Path(source)) if isinstance(source, str | os.PathLike) else StreamBody(source)


class FileBody:
    """A file by its path."""

    restartable = True

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.size: int | None = path.stat().st_size if path.is_file() else None
            path.open("rb").close()
        except OSError as exc:
            raise SourceFailed(f"cannot read {path}: {exc.strerror}") from exc
        # A named pipe has no size and cannot be read twice.
        self.restartable = self.size is not None

    def blocks(self) -> Iterator[Block]:
        try:
            with self._path.open("rb", buffering=0) as file:
                yield from _exactly(file, self.size) if self.size is not None else _to_the_end(file)
        except OSError as exc:
            raise SourceFailed(f"cannot read {self._path}: {exc.strerror or exc}") from exc


class StreamBody:
    """An open binary file: sent from where it stands, rewound to there when it can seek."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._start = stream.tell() if stream.seekable() else None
        self._untouched = True
        self.size: int | None = None
        if self._start is not None:
            self.size = stream.seek(0, os.SEEK_END) - self._start
            stream.seek(self._start)

    @property
    def restartable(self) -> bool:
        return self._untouched or self._start is not None

    def blocks(self) -> Iterator[Block]:
        self._untouched = False
        try:
            if self._start is not None:
                self._stream.seek(self._start)
            yield from _to_the_end(self._stream, self.size)
        except OSError as exc:
            raise SourceFailed(f"cannot read {getattr(self._stream, 'name', 'the stream')}: {exc}") from exc


class MultipartBody:
    """multipart/form-data with the plain fields first, then the files, each streamed from disk."""

    restartable = True

    def __init__(self, fields: Mapping[str, str], files: Mapping[str, Path]) -> None:
        boundary = uuid.uuid4().hex
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._head = b"".join(_part(boundary, name) + value.encode() + b"\r\n" for name, value in fields.items())
        self._files = [(_part(boundary, name, path.name), FileBody(path)) for name, path in files.items()]
        self._tail = f"--{boundary}--\r\n".encode()
        between = sum(len(part) + (body.size or 0) + 2 for part, body in self._files)
        self.size: int | None = len(self._head) + between + len(self._tail)

    def blocks(self) -> Iterator[Block]:
        yield self._head
        for part, body in self._files:
            yield part
            yield from body.blocks()
            yield b"\r\n"
        yield self._tail


def _part(boundary: str, name: str, file_name: str | None = None) -> bytes:
    disposition = f'form-data; name="{name}"'
    kind = ""
    if file_name is not None:
        quoted = file_name.replace("\\", "_").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        disposition += f'; filename="{quoted}"'
        kind = "Content-Type: application/octet-stream\r\n"
    return f"--{boundary}\r\nContent-Disposition: {disposition}\r\n{kind}\r\n".encode()


def _exactly(file: BinaryIO, size: int) -> Iterator[Block]:
    """`size` bytes in one buffer that is used again and again.

    A file that is still being written would be cut in mid-row, so the last block is held back until the size is known to
    be what was announced.
    """
    buffer = memoryview(bytearray(min(BLOCK_BYTES, size) or 1))
    left = size
    while left:
        count = file.readinto(buffer[: min(left, len(buffer))])  # type: ignore[attr-defined]  # a raw file has it
        left -= count
        if not count or (not left and os.fstat(file.fileno()).st_size != size):
            raise SourceFailed(
                f"{file.name} changed while it was being uploaded: wait until it is written, then try again"
            )
        yield buffer[:count]


def _to_the_end(stream: BinaryIO, size: int | None = None) -> Iterator[Block]:
    """All that is there; with `size` it must be as much as was announced, or the API would wait for the rest."""
    name = getattr(stream, "name", "the stream")
    sent = 0
    while block := stream.read(BLOCK_BYTES):
        if isinstance(block, str):
            raise SourceFailed(f"{name} is open as text: open it for bytes, mode 'rb'")
        sent += len(block)
        if size is not None and sent > size:
            break
        yield block
    if size is not None and sent != size:
        raise SourceFailed(f"{name} changed while it was being uploaded: wait until it is written, then try again")
