"""Any bytes, in blocks of any size: what the cutter gives re-joins to them, with the records of Python's csv module."""

from __future__ import annotations

import csv
import io
import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from errors import InvalidInput
from records.boundaries import fields
from records.cutter import CsvCutter, Limits, NdjsonCutter, Piece, pieces
from records.split import raw_texts

DELIMITERS = st.characters(min_codepoint=1, max_codepoint=127, exclude_characters='"\r\n')
# Bytes that mean something, and others.
TOKENS = [
    b'"',
    b'""',
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xc3\xa9",
    b"\xf0\x9f\x98\x80",
    b"a",
    b" ",
    b"1",
]
BODIES = st.one_of(st.binary(max_size=80), st.lists(st.sampled_from(TOKENS), max_size=40).map(b"".join))
LIMITS = st.builds(
    Limits,
    chunk_bytes=st.integers(1, 60),
    max_record_bytes=st.just(200),
    first_piece_bytes=st.integers(1, 60),
    chunk_rows=st.none() | st.integers(1, 3),
)
MANY = settings(max_examples=400, deadline=None, derandomize=True, database=None)


def blocks(body: bytes, seed: int) -> list[bytes]:
    chance, cut, place = random.Random(seed), [], 0
    while place < len(body):
        step = chance.choice([1, 1, 2, 5, 30, 1_000])
        cut.append(body[place : place + step])
        place += step
    return cut


def cut(cutter: CsvCutter | NdjsonCutter, body: bytes, seed: int) -> list[Piece] | None:
    try:
        return list(pieces(cutter, blocks(body, seed)))
    except InvalidInput:
        return None


@MANY
@given(body=BODIES, delimiter=DELIMITERS, limits=LIMITS, seed=st.integers(0, 99))
@example(body=b'"\r\n\r', delimiter=",", limits=Limits(5, 200, 2_000, 5), seed=1)
def test_csv_pieces_hold_the_file_and_its_records(body: bytes, delimiter: str, limits: Limits, seed: int) -> None:
    header = f"k{delimiter}v\n".encode() if delimiter not in "kv" else f"0{delimiter}1\n".encode()
    cutter = CsvCutter(delimiter, limits)
    found = cut(cutter, header + body, seed)
    whole = cut(CsvCutter(delimiter, limits), header + body, 10**6)
    assert (found is None) == (cut(CsvCutter(delimiter, limits), header + body, seed + 1) is None)
    if found is None:
        return
    joined = b"".join(piece.data for piece in found)
    assert whole is not None
    assert b"".join(piece.data for piece in whole) == joined
    assert body.replace(b"\r\n", b"\n").replace(b"\n", b"") == joined.replace(b"\r\n", b"\n").replace(b"\n", b"")
    assert body.endswith(joined)  # only blank lines at the beginning are left out
    rows = [row for row in csv.reader(io.StringIO(body.decode(), newline=""), delimiter=delimiter) if row]
    texts = [text for piece in found for text in raw_texts(piece.data, "csv", delimiter)]
    assert [fields(text, delimiter) for text in texts] == rows
    assert [piece.rows for piece in found] == [len(raw_texts(piece.data, "csv", delimiter)) for piece in found]
    assert sum(piece.rows for piece in found) == len(rows)
    assert all(piece.rows <= (limits.chunk_rows or len(rows)) for piece in found)


@MANY
@given(body=BODIES, limits=LIMITS, seed=st.integers(0, 99))
def test_ndjson_pieces_hold_the_file_and_its_lines(body: bytes, limits: Limits, seed: int) -> None:
    content = b'{"a": 1}\n' + body
    found = cut(NdjsonCutter(limits), content, seed)
    assert (found is None) == (cut(NdjsonCutter(limits), content, seed + 1) is None)
    if found is None:
        return
    lines = [line for line in content.split(b"\n") if line.strip(b" \t\r\n")]
    assert b"".join(piece.data for piece in found).split(b"\n")[0] == lines[0]
    assert [line for piece in found for line in piece.data.split(b"\n") if line.strip(b" \t\r\n")] == lines
    assert sum(piece.rows for piece in found) == len(lines)
