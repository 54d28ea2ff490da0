"""For any text and any blocks: the pieces hold the file, and their records are those of Python's csv module."""

from __future__ import annotations

import csv
import io
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from errors import InvalidInput
from records.boundaries import fields
from records.cutter import CsvCutter, Limits, NdjsonCutter, Piece, pieces
from records.split import halve, raw_records, raw_texts, select

LIMITS = st.builds(
    Limits,
    chunk_bytes=st.integers(1, 200),
    max_record_bytes=st.just(10_000),
    first_piece_bytes=st.integers(1, 200),
)
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5)
CELLS = st.one_of(
    st.text(alphabet='ab,;"\n\ré€😀 ', max_size=8), st.text(st.characters(codec="utf-8", exclude_characters="\0"))
)
FEW = settings(max_examples=150, deadline=None)
MANY = settings(max_examples=400, deadline=None)


def blocks_of(data: bytes, sizes: list[int]) -> list[bytes]:
    blocks, place, turn = [], 0, 0
    while place < len(data):
        blocks.append(data[place : place + sizes[turn % len(sizes)]])
        place += sizes[turn % len(sizes)]
        turn += 1
    return blocks


def expected(text: str, delimiter: str) -> list[list[str]]:
    """All rows of a text but blank lines, as Python reads them."""
    return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]


def check(data: bytes, found: list[Piece], rows: list[list[str]], delimiter: str) -> None:
    """The pieces' numbers, lines and cells, split in each of the ways that there are."""
    row = 1
    for piece in found:
        assert piece.first_row == row
        assert piece.rows > 0
        records = raw_records(piece.data, "csv", delimiter)
        assert [record.raw for record in records] == raw_texts(piece.data, "csv", delimiter)
        assert [fields(record.raw, delimiter) for record in records] == rows[row - 1 : row - 1 + piece.rows]
        lines = data.split(b"\n")
        for record in records:
            assert lines[piece.first_line - 1 + record.line].startswith(record.raw.split(b"\n")[0])
        assert records[0].line == 0
        row += piece.rows
        if piece.rows > 1:
            first, second = halve(piece, "csv", delimiter)
            assert first.data + second.data == piece.data
            assert first.rows + second.rows == piece.rows == first.rows * 2 + piece.rows % 2
            assert second.first_row == piece.first_row + first.rows
            assert raw_records(second.data, "csv", delimiter)[0].raw == records[first.rows].raw
            assert second.first_line == piece.first_line + records[first.rows].line
        odd = select(piece.data, range(1, piece.rows, 2), "csv", delimiter)
        assert [fields(raw, delimiter) for raw in raw_texts(odd, "csv", delimiter)] == rows[
            row - piece.rows : row - 1 : 2
        ]
    assert row - 1 == len(rows)


def cut_or_refused(data: bytes, sizes: list[int], limits: Limits) -> tuple[list[Piece], str]:
    try:
        return list(pieces(CsvCutter(",", limits), blocks_of(data, sizes))), ""
    except InvalidInput as refusal:
        return [], str(refusal)


@FEW
@given(
    table=st.lists(st.lists(CELLS, min_size=2, max_size=3), max_size=25),
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    last_end=st.booleans(),
    sizes=SIZES,
    limits=LIMITS,
)
def test_well_formed_csv(
    *, table: list[list[str]], delimiter: str, end: str, quoting: int, last_end: bool, sizes: list[int], limits: Limits
) -> None:
    if any("\r" in cell for row in table for cell in row):
        quoting = csv.QUOTE_ALL  # older Pythons leave a lone CR unquoted when lines end with LF
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(["key", "c\nolumn", 'q"'])
    header = len(out.getvalue().encode())
    writer.writerows(table)
    text = out.getvalue() if last_end else out.getvalue().removesuffix(end)
    data = text.encode()
    cutter = CsvCutter(delimiter, limits)
    found = list(pieces(cutter, blocks_of(data, sizes)))
    assert cutter.columns == ["key", "c\nolumn", 'q"']
    assert b"".join(piece.data for piece in found) == data[header:]
    check(data, found, table, delimiter)


@MANY
@given(body=st.text(alphabet='a,"\n\r;é ', max_size=60), sizes=SIZES, limits=LIMITS)
def test_any_quoting_is_read_as_python_reads_it_or_refused(body: str, sizes: list[int], limits: Limits) -> None:
    data = b"x,y\n" + body.encode()
    found, refusal = cut_or_refused(data, sizes, limits)
    if refusal:
        # nothing else is refused: CR alone as a line end, and a quote that is still open at the end
        assert ("carriage return" in refusal and "\r" in body) or ("does not end" in refusal and '"' in body)
        return
    check(data, found, expected(data.decode(), ",")[1:], ",")


@MANY
@given(body=st.text(alphabet='a,"\n ', max_size=60), sizes=SIZES, limits=LIMITS)
def test_without_carriage_returns_only_open_quotes_are_refused(body: str, sizes: list[int], limits: Limits) -> None:
    # a sentinel line after the text is a row of its own unless a quote is still open
    rows = expected(f"x,y\n{body}\nsentinel", ",")
    data = b"x,y\n" + body.encode()
    found, refusal = cut_or_refused(data, sizes, limits)
    if refusal:
        assert rows[-1] != ["sentinel"]
        return
    assert rows[-1] == ["sentinel"]
    check(data, found, rows[1:-1], ",")
    assert sum(len(piece.data) for piece in found) <= len(body.encode())


@FEW
@given(
    values=st.lists(st.dictionaries(st.text("abé", min_size=1), st.text('a"\n\r,é\u2028 '), min_size=1), min_size=1),
    gaps=st.lists(st.sampled_from(["\n", "\r\n", "\n\n", "\n \r\n\t\n"]), min_size=1),
    sizes=SIZES,
    limits=LIMITS,
)
def test_ndjson(values: list[dict[str, str]], gaps: list[str], sizes: list[int], limits: Limits) -> None:
    text = "".join(json.dumps(v, ensure_ascii=False) + gaps[i % len(gaps)] for i, v in enumerate(values))
    data = text.encode()
    cutter = NdjsonCutter(limits)
    found = list(pieces(cutter, blocks_of(data, sizes)))
    assert cutter.columns == list(values[0])
    records = [(piece, record) for piece in found for record in raw_records(piece.data, "ndjson")]
    assert [json.loads(record.raw) for _, record in records] == values
    assert [raw for piece in found for raw in raw_texts(piece.data, "ndjson")] == [record.raw for _, record in records]
    lines = data.split(b"\n")
    assert all(lines[p.first_line - 1 + r.line].rstrip(b"\r") == r.raw for p, r in records)
    assert [piece.first_row for piece in found] == [1 + sum(p.rows for p in found[:i]) for i in range(len(found))]
