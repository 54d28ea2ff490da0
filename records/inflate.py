"""The bytes of an upload as they were before compression, bounded in memory and in size.

A gzip bomb is stopped while it unpacks: the output is counted block by block and compared with what was read so far.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator

from errors import InvalidInput, Problem, TooLarge, UnsupportedMedia

GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = zlib.MAX_WBITS | 16  # 16: expect the gzip header and check the CRC and the length at the end

# Small input steps: zlib copies the input that it did not use at every call, which for large blocks would be quadratic.
_INPUT_STEP = 16 * 1024
_OUTPUT_STEP = 256 * 1024
_FREE_OUTPUT = 16 * 1024 * 1024  # a small file of few distinct rows may compress very well, and harms nobody

_COMPRESS_AGAIN = "Compress the file again, check it with `gzip -t`, and upload it again"


def inflated(blocks: Iterable[bytes], *, encoding: str | None, max_bytes: int, max_inflation: int) -> Iterator[bytes]:
    """The decompressed blocks of a body, none of them empty.

    Args:
        blocks: the body as it arrives, in blocks of any size.
        encoding: the `Content-Encoding`; none or `identity`, or `gzip`, also of several members. A body that begins
            with gzip's magic number is unpacked whatever the header says, because it cannot be UTF-8 text.
        max_bytes: bound on the decompressed bytes (and on the compressed ones).
        max_inflation: bound on decompressed bytes per compressed byte, applied past the first 16 MiB of output.

    Raises:
        UnsupportedMedia: at once, when the encoding is another one.
        TooLarge: while iterating, when a bound is crossed.
        InvalidInput: while iterating, when the gzip stream is damaged or ends early.
    """
    name = (encoding or "identity").strip().lower()
    if name not in {"identity", "gzip", "x-gzip"}:
        raise UnsupportedMedia(
            f'The content encoding "{name}" is not supported; send the body as it is or with Content-Encoding: gzip'
        )
    return _inflated(blocks, name != "identity", max_bytes, max_inflation)


def _inflated(blocks: Iterable[bytes], gzip: bool, max_bytes: int, max_inflation: int) -> Iterator[bytes]:
    head, rest = _head(iter(blocks))
    body = itertools.chain([head] if head else [], rest)
    if gzip or head.startswith(GZIP_MAGIC):
        yield from _gunzipped(body, max_bytes, max_inflation)
    else:
        yield from _counted(body, max_bytes)


def _head(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, at least two where there are so many, and the blocks that follow."""
    head = b""
    for block in blocks:
        head += block
        if len(head) >= len(GZIP_MAGIC):
            break
    return head, blocks


def _counted(blocks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    size = 0
    for block in blocks:
        size += len(block)
        _check_size(size, max_bytes)
        if block:
            yield block


def _gunzipped(blocks: Iterable[bytes], max_bytes: int, max_inflation: int) -> Iterator[bytes]:
    member = zlib.decompressobj(_GZIP_WINDOW)
    read = written = 0
    for step in _steps(blocks):
        read += len(step)
        _check_size(read, max_bytes)
        pending = step
        while pending:
            if member.eof:
                pending = pending.lstrip(b"\0")  # zeros that pad a member are no error
                if not pending:
                    break
                member = zlib.decompressobj(_GZIP_WINDOW)
            output = _decompressed(member, pending, read)
            pending = member.unused_data if member.eof else member.unconsumed_tail
            written += len(output)
            _check_size(written, max_bytes)
            _check_inflation(written, read - len(pending), max_inflation)
            if output:
                yield output
    if not member.eof and read:
        raise _damaged(
            f"The gzip stream ends early, after {read:,} compressed bytes: the file or its upload was cut off. "
            f"{_COMPRESS_AGAIN}"
        )


def _steps(blocks: Iterable[bytes]) -> Iterator[bytes]:
    for block in blocks:
        for start in range(0, len(block), _INPUT_STEP):
            yield block[start : start + _INPUT_STEP]


def _decompressed(member: zlib._Decompress, data: bytes, read: int) -> bytes:
    try:
        return member.decompress(data, _OUTPUT_STEP)
    except zlib.error as exc:
        raise _damaged(
            f"The gzip stream is damaged, or is none, near compressed byte {read:,} ({exc}). {_COMPRESS_AGAIN}, "
            "or leave out Content-Encoding: gzip when the body is not compressed"
        ) from exc


def _damaged(detail: str) -> InvalidInput:
    return InvalidInput(detail, [Problem(detail, "#")])


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise TooLarge(f"The upload is larger than the {max_bytes:,} bytes allowed; split the file into several jobs")


def _check_inflation(written: int, read: int, max_inflation: int) -> None:
    if written > _FREE_OUTPUT and written > max_inflation * read:
        raise TooLarge(
            f"The gzip stream unpacks to more than {max_inflation} times its size, as a gzip bomb does; "
            "send the file uncompressed if it really is so repetitive"
        )
