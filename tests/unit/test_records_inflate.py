"""Compressed uploads: what is unpacked, what is refused, and that a bomb is stopped early."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest

from errors import InvalidInput, TooLarge, UnsupportedMedia
from records.inflate import inflated

MIB = 1024 * 1024
TEXT = b"age,income\n" + b"42,1000.5\n" * 50_000


def blocks_of(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def unpacked(
    blocks: Iterable[bytes], encoding: str | None, max_bytes: int = 64 * MIB, max_inflation: int = 200
) -> bytes:
    return b"".join(inflated(blocks, encoding=encoding, max_bytes=max_bytes, max_inflation=max_inflation))


@pytest.mark.parametrize("encoding", [None, "", "identity", "IDENTITY "])
def test_plain_bodies_pass_through(encoding: str | None) -> None:
    assert unpacked([b"", b"a", b"", b",b\n", b"1,2\n"], encoding) == b"a,b\n1,2\n"
    assert unpacked([], encoding) == b""


@pytest.mark.parametrize("size", [1, 7, 4096, 10**9])
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", None])
def test_gzip_is_unpacked_with_or_without_the_header(encoding: str | None, size: int) -> None:
    text = TEXT[:20_000] if size == 1 else TEXT
    assert unpacked(blocks_of(gzip.compress(text), size), encoding) == text


@pytest.mark.parametrize("size", [1, 1000])
def test_gzip_members_and_padding_between_and_after_them(size: int) -> None:
    body = gzip.compress(b"a,b\n") + gzip.compress(b"") + b"\0" * 3 + gzip.compress(b"1,2\n") + b"\0" * 600
    assert unpacked(blocks_of(body, size), "gzip") == b"a,b\n1,2\n"


def test_other_encodings_are_refused_before_a_byte_is_read() -> None:
    with pytest.raises(UnsupportedMedia, match=r'"br" is not supported; send the body as it is or with .*gzip'):
        inflated(iter([]), encoding="br", max_bytes=1, max_inflation=1)


@pytest.mark.parametrize("cut", [3, 15, 400, -8, -1])
def test_a_truncated_stream_is_refused(cut: int) -> None:
    body = gzip.compress(TEXT)
    with pytest.raises(
        InvalidInput, match=r"gzip stream ends early, after .* compressed bytes.*Compress the file again"
    ):
        unpacked([body[:cut]], "gzip")


def test_a_damaged_stream_is_refused() -> None:
    body = bytearray(gzip.compress(os.urandom(5000)))
    body[-8] ^= 1  # the CRC
    with pytest.raises(
        InvalidInput, match=r"gzip stream is damaged, or is none, near compressed byte 5,0\d\d"
    ) as caught:
        unpacked([bytes(body)], None)
    assert caught.value.problems[0].pointer == "#"


def test_a_body_that_is_no_gzip_is_refused_and_told_about_the_header() -> None:
    with pytest.raises(InvalidInput, match="leave out Content-Encoding: gzip"):
        unpacked([b"a,b\n1,2\n"], "gzip")
    with pytest.raises(InvalidInput, match="damaged"):
        unpacked([gzip.compress(b"a\n") + b"rubbish"], "gzip")


def test_the_bound_on_bytes_holds_exactly() -> None:
    assert unpacked([b"x" * 60, b"y" * 40], None, max_bytes=100) == b"x" * 60 + b"y" * 40
    with pytest.raises(TooLarge, match="larger than the 100 bytes allowed; split the file"):
        unpacked([b"x" * 60, b"y" * 41], None, max_bytes=100)
    assert len(unpacked([gzip.compress(TEXT)], "gzip", max_bytes=len(TEXT))) == len(TEXT)
    with pytest.raises(TooLarge, match="allowed"):
        unpacked([gzip.compress(TEXT)], "gzip", max_bytes=len(TEXT) - 1)


def test_a_bomb_is_stopped_soon_after_16_mib_and_memory_stays_flat() -> None:
    bomb = gzip.compress(b"0" * (100 * MIB))
    assert len(bomb) < 120_000
    written = 0
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="more than 200 times its size, as a gzip bomb does"):  # noqa: PT012 - counts on the way
            for block in inflated([bomb], encoding=None, max_bytes=10**12, max_inflation=200):
                written += len(block)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 15 * MIB < written <= 16 * MIB
    assert peak < 4 * MIB


def test_small_repetitive_files_and_well_compressed_large_ones_pass() -> None:
    assert len(unpacked([gzip.compress(b"0" * (15 * MIB))], "gzip")) == 15 * MIB
    assert len(unpacked([gzip.compress(b"0" * (20 * MIB))], "gzip", max_inflation=2000)) == 20 * MIB


def test_padding_is_bounded_too() -> None:
    def padded() -> Iterator[bytes]:
        yield gzip.compress(b"a\n")
        for _ in range(20):
            yield b"\0" * 65_536

    with pytest.raises(TooLarge, match="allowed"):
        unpacked(padded(), "gzip", max_bytes=MIB)
