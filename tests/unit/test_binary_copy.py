"""Binary COPY streams, byte for byte as the format's documentation has them."""

from __future__ import annotations

import struct
from uuid import UUID

import numpy as np

from db import binary_copy

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)


def by_hand(*rows: tuple[bytes | None, ...]) -> bytes:
    def field(value: bytes | None) -> bytes:
        return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value

    body = b"".join(struct.pack(">h", len(row)) + b"".join(map(field, row)) for row in rows)
    return SIGNATURE + body + struct.pack(">h", -1)


def texts(*values: str | None) -> binary_copy.Field:
    encoded = [(value or "").encode() for value in values]
    offsets = np.cumsum([0, *map(len, encoded)])
    nulls = np.array([value is None for value in values])
    return binary_copy.texts(offsets, np.frombuffer(b"".join(encoded), np.uint8), nulls)


def test_rows_of_one_size() -> None:
    ids = [UUID(int=1), UUID(int=2)]
    stream = binary_copy.encode(
        [
            binary_copy.uuids(ids, np.array([1, 0])),
            binary_copy.integers(np.array([7, -1])),
            binary_copy.floats(np.array([0.1, -2.5])),
            texts("ab", "cd"),
            binary_copy.nothing(2),
        ]
    )
    assert stream == by_hand(
        (ids[1].bytes, struct.pack(">i", 7), struct.pack(">d", 0.1), b"ab", None),
        (ids[0].bytes, struct.pack(">i", -1), struct.pack(">d", -2.5), b"cd", None),
    )


def test_rows_that_differ_in_size_and_hold_nulls() -> None:
    stream = binary_copy.encode(
        [texts("", "é", None, "long"), binary_copy.integers(np.arange(4)), texts("x", None, "yy", "")]
    )
    assert stream == by_hand(
        (b"", struct.pack(">i", 0), b"x"),
        ("é".encode(), struct.pack(">i", 1), None),
        (None, struct.pack(">i", 2), b"yy"),
        (b"long", struct.pack(">i", 3), b""),
    )


def test_arrays_of_floats() -> None:
    stream = binary_copy.encode([binary_copy.float_arrays(np.array([[0.25, 0.75]]))])
    array = struct.pack(">iiiii", 1, 0, 701, 2, 1) + struct.pack(">id", 8, 0.25) + struct.pack(">id", 8, 0.75)
    assert stream == by_hand((array,))


def test_no_rows_are_no_stream() -> None:
    assert binary_copy.encode([binary_copy.integers(np.empty(0))]) == b""
