"""Binary COPY streams, byte for byte as the format's documentation has them."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from db import binary_copy

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)


def framed(value: bytes | None) -> bytes:
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value


def array(element: int, *values: bytes | None, nulls: bool = False) -> bytes:
    return struct.pack(">iiiii", 1, nulls, element, len(values), 1) + b"".join(map(framed, values))


def texts(*values: str | None) -> bytes:
    encoded = [(value or "").encode() for value in values]
    offsets = np.cumsum([0, *map(len, encoded)])
    nulls = np.array([value is None for value in values])
    return binary_copy.text_array(
        offsets, np.frombuffer(b"".join(encoded), np.uint8), nulls if None in values else None
    )


def test_rows_and_nulls() -> None:
    stream = binary_copy.stream([(b"ab", None), (b"", binary_copy.int4(-2))])
    rows = struct.pack(">h", 2) + framed(b"ab") + framed(None) + struct.pack(">h", 2) + framed(b"")
    assert stream == SIGNATURE + rows + framed(struct.pack(">i", -2)) + struct.pack(">h", -1)


def test_no_rows_are_no_stream() -> None:
    assert binary_copy.stream([]) == b""


def test_arrays_of_numbers() -> None:
    assert binary_copy.int_array(np.array([7, -1])) == array(23, struct.pack(">i", 7), struct.pack(">i", -1))
    assert binary_copy.float_array(np.array([0.1, -2.5])) == array(701, struct.pack(">d", 0.1), struct.pack(">d", -2.5))


# A few elements are written by a loop, many by numpy, and those of one length by a way of their own.
@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize(
    "values",
    [["ab", "cd", "ef"], ["", "é", "long", "x"], ["", "é", None, "long"], [None, None], ["", ""]],
    ids=["one length", "lengths differ", "a null", "only nulls", "only empty"],
)
def test_arrays_of_texts(values: list[str | None], times: int) -> None:
    values = values * times
    expected = [None if value is None else value.encode() for value in values]
    assert texts(*values) == array(25, *expected, nulls=None in values)


def test_a_slice_of_an_array_is_written_alone() -> None:
    data = np.frombuffer(b"abcdef", np.uint8)
    assert binary_copy.text_array(np.array([2, 3, 5]), data) == array(25, b"c", b"de")
