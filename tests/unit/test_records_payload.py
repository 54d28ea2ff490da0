"""Chunks as they are stored: exact, smaller, checked, from many threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from errors import ScorehouseError, TooLarge
from records.payload import pack, unpack

TEXT = b"".join(b"%d,UA,JFK,LAX,%d\n" % (i, i * 7 % 997) for i in range(20_000))


@pytest.mark.parametrize("data", [b"", b"a", TEXT, os.urandom(1000)])
def test_what_goes_in_comes_out(data: bytes) -> None:
    assert unpack(pack(data), len(data)) == data
    frame = zstandard.get_frame_parameters(pack(data))
    assert (frame.content_size, frame.has_checksum) == (len(data), True)


def test_csv_shrinks() -> None:
    assert len(pack(TEXT)) < len(TEXT) / 2


def test_larger_than_expected_is_refused() -> None:
    with pytest.raises(TooLarge, match=r"unpacks to [\d,]+ bytes, more than the 10 expected"):
        unpack(pack(TEXT), 10)


def test_a_frame_without_its_size_is_refused() -> None:
    payload = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    with pytest.raises(ScorehouseError, match="does not say its size"):
        unpack(payload, 10**9)


@pytest.mark.parametrize(
    "damage", [lambda p: p[:-1], lambda p: p + b"x", lambda p: b"x" + p, lambda p: b"", lambda p: TEXT]
)
def test_damage_is_noticed(damage) -> None:  # type: ignore[no-untyped-def]  # a parametrized lambda
    with pytest.raises(ScorehouseError, match="damaged"):
        unpack(damage(pack(TEXT)), 10**9)


def test_a_flipped_bit_is_noticed() -> None:
    payload = bytearray(pack(os.urandom(1000)))
    payload[500] ^= 1
    with pytest.raises(ScorehouseError, match="damaged"):
        unpack(bytes(payload), 10**9)


def test_many_threads_share_nothing() -> None:
    texts = [TEXT[i:] for i in range(64)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda text: unpack(pack(text), len(text)), texts)) == texts
