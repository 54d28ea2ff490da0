"""How a chunk's bytes are stored: one zstd frame that knows its size and its checksum."""

from __future__ import annotations

import threading

import zstandard

from errors import ScorehouseError, TooLarge

_LEVEL = 1  # 220 MB/s or more, to a fifth of the size; higher levels cost more than Postgres saves


class _Codec(threading.local):
    """One compressor and one decompressor per thread: they are costly to make and must not be shared."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True, write_checksum=True)
        self.decompressor = zstandard.ZstdDecompressor()


_codec = _Codec()


def pack(data: bytes) -> bytes:
    """The payload of a chunk's bytes. Safe to call from many threads."""
    return _codec.compressor.compress(data)


def unpack(payload: bytes, max_bytes: int) -> bytes:
    """The bytes that `pack` was given. Safe to call from many threads.

    Raises:
        TooLarge: they would be more than `max_bytes`; nothing is unpacked then.
        ScorehouseError: the payload is not what `pack` returned.
    """
    size = _content_size(payload)
    if size > max_bytes:
        raise TooLarge(f"A stored chunk unpacks to {size:,} bytes, more than the {max_bytes:,} expected")
    try:
        return _codec.decompressor.decompress(payload, max_output_size=max(size, 1), allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise _damaged(exc) from exc


def _content_size(payload: bytes) -> int:
    try:
        size = zstandard.frame_content_size(payload)
    except zstandard.ZstdError as exc:
        raise _damaged(exc) from exc
    if size < 0:
        raise _damaged("the frame does not say its size")
    return size


def _damaged(cause: object) -> ScorehouseError:
    return ScorehouseError(f"A stored chunk is damaged ({cause}); restore it from a backup or submit the job again")
