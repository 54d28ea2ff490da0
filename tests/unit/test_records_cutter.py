"""The rules by which uploads are cut into pieces, and what each refusal says."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Iterator

import pytest

from errors import InvalidInput
from records.cutter import CsvCutter, Cutter, Limits, NdjsonCutter, Piece, cutter_of, pieces
from records.piece import rows_in_time
from settings import Settings

KIB, MIB = 1024, 1024 * 1024
SMALL = Limits(chunk_bytes=16, max_record_bytes=64, first_piece_bytes=8)


def cut(text: str | bytes, cutter: Cutter | None = None, size: int = 65_536) -> list[Piece]:
    data = text.encode() if isinstance(text, str) else text
    return list(pieces(cutter or CsvCutter(), (data[i : i + size] for i in range(0, len(data), size))))


def refusal(text: str | bytes, cutter: Cutter | None = None, size: int = 65_536) -> tuple[str, list[str]]:
    with pytest.raises(InvalidInput) as caught:
        cut(text, cutter, size)
    problems = caught.value.problems
    assert problems
    assert str(caught.value).startswith(problems[0].detail)
    return str(caught.value), [problem.pointer for problem in problems]


# what is accepted


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_rows_lines_and_columns(bom: str, end: str, size: int) -> None:
    cutter = CsvCutter()
    text = end.join([f"{bom}id,name", "1,Zoë", '2,"a', 'b,""c"""', "3,", ""])
    assert cut(text, cutter, size) == [Piece(1, 3, 2, end.join(["1,Zoë", '2,"a', 'b,""c"""', "3,", ""]).encode())]
    assert cutter.columns == ["id", "name"]


def test_columns_are_known_as_soon_as_the_header_has_arrived() -> None:
    cutter = CsvCutter(";")
    for block in (b"\xef", b"\xbb\xbfa;", b'"b', b"\n", b'c";d\r'):
        assert list(cutter.feed(block)) == []
        assert cutter.columns is None
    assert list(cutter.feed(b"\n1;")) == []
    assert cutter.columns == ["a", "b\nc", "d"]


def test_a_last_record_needs_no_line_end() -> None:
    assert cut("a,b\n1,2\n3,4") == [Piece(1, 2, 2, b"1,2\n3,4")]
    assert cut('a,b\n1,2\n3,"4"') == [Piece(1, 2, 2, b'1,2\n3,"4"')]
    assert cut('a,b\n1,2"\n3,4"') == [Piece(1, 2, 2, b'1,2"\n3,4"')]


def test_a_header_alone_has_no_rows() -> None:
    for text in ("a,b", "a,b\n", "a,b\r\n", "\n\na,b\n\n\r\n"):
        cutter = CsvCutter()
        assert cut(text, cutter) == []
        assert cutter.columns == ["a", "b"]


def test_blank_lines_are_no_records_but_count_as_lines() -> None:
    assert cut("\n\na\n\r\n\n1\n\n2\n\n") == [Piece(1, 2, 6, b"1\n\n2\n\n")]
    found = cut("a\n1\n\n\n\n\n\n\n\n\n\n\n\n\n2\n", CsvCutter(limits=SMALL))
    assert [(piece.first_row, piece.rows, piece.first_line) for piece in found] == [(1, 1, 2), (2, 1, 15)]
    assert cut("\n" * 200 + "a\n1\n", CsvCutter(limits=SMALL), 7) == [Piece(1, 1, 202, b"1\n")]
    assert cut('a\n""\n \n') == [Piece(1, 2, 2, b'""\n \n')]


def test_quotes_amid_a_field_are_literal() -> None:
    assert cut('a,b\n5" pipe,x\n6",y"\nz,"q"r"\n')[0].rows == 3


def test_quoted_cells_may_hold_delimiters_line_ends_and_lone_carriage_returns() -> None:
    assert cut('a,b\n"x,\r\ny\rz\n\n","""q"""\n1,2\n') == [Piece(1, 2, 2, b'"x,\r\ny\rz\n\n","""q"""\n1,2\n')]
    assert cut('a,b\n5",""\n"x\ry",2\n')[0].rows == 2


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_decides_where_quotes_open(delimiter: str) -> None:
    cutter = CsvCutter(delimiter)
    assert cut(f'a{delimiter}b\n1{delimiter}"x\ny"\n', cutter)[0].rows == 1
    assert cutter.columns == ["a", "b"]
    assert cut('a!b\n1,"x\ny"\n', CsvCutter("!"))[0].rows == 2


@pytest.mark.parametrize("size", [100, 65_536, 10**9])
def test_pieces_grow_from_128_kib_to_the_chunk_size_and_join_to_the_file(size: int) -> None:
    text = b"".join(b"%07d,x\n" % i for i in range(200_000 if size > 100 else 30_000))
    found = cut(b"n,x\n" + text, CsvCutter(limits=Limits(chunk_bytes=512 * KIB)), size)
    assert b"".join(piece.data for piece in found) == text
    sizes = [len(piece.data) for piece in found]
    for actual, wanted in zip(sizes[:-1], [128, 256, 512, 512, 512], strict=False):
        assert wanted * KIB - 10 < actual <= wanted * KIB
    row = 1
    for piece in found:
        assert (piece.first_row, piece.first_line) == (row, row + 1)
        assert piece.data.startswith(b"%07d" % (row - 1))
        row += piece.rows


def test_pieces_of_a_slow_model_have_few_rows() -> None:
    text = "".join(f"{number},x\n" + "\n" * (number % 3 == 0) for number in range(1, 24))
    found = cut("n,x\n" + text, CsvCutter(limits=Limits(chunk_rows=10)))
    assert [(piece.first_row, piece.rows) for piece in found] == [(1, 10), (11, 10), (21, 3)]
    assert b"".join(piece.data for piece in found).decode() == text
    lines = ("n,x\n" + text).splitlines()
    assert [lines[piece.first_line - 1] for piece in found] == ["1,x", "11,x", "21,x"]


def test_a_chunk_has_the_rows_that_are_scored_in_a_fifth_of_its_time() -> None:
    settings = Settings(chunk_time_limit=20.0)
    assert rows_in_time(settings, 0.01) == 400
    assert rows_in_time(settings, 100.0) == 1
    assert rows_in_time(settings, 0.0) is rows_in_time(settings, None) is None
    assert Limits.of(settings, 0.01).chunk_rows == 400


def test_limits_come_from_the_settings() -> None:
    settings = Settings(chunk_bytes=1000, max_record_bytes=100, max_columns=10)
    assert Limits.of(settings) == Limits(chunk_bytes=1000, max_record_bytes=100, max_columns=10)
    assert Limits() == Limits.of(Settings())


# the header


def test_an_empty_file_is_refused() -> None:
    for text in (b"", b"\n\r\n", b"\xef\xbb\xbf"):
        assert refusal(text) == (
            "The file is empty; its first line must name the columns, for instance `customer,age,income`",
            ["#/line/1"],
        )


def test_blank_and_duplicate_names_are_all_listed() -> None:
    text, pointers = refusal("\na,,b,a, ,a/b,b,a/b\n")
    assert (
        text
        == "Column 2 of 8 on line 2 has no name; name it or remove the column (and 4 more problems with the header)"
    )
    assert pointers == ["#/line/2", "#/line/2", "#/columns/a", "#/columns/b", "#/columns/a~1b"]
    text, _ = refusal("a,b,a\n")
    assert text == (
        'The header (line 1) names the column "a" more than once, at positions 1 and 3; rename or remove all but one'
    )


def test_too_many_columns_are_refused() -> None:
    names = [f"c{i}" for i in range(1, 2002)]
    cutter = CsvCutter()
    cut(",".join(names[:2000]), cutter)
    assert cutter.columns == names[:2000]
    text, pointers = refusal(",".join(names) + "\n")
    assert 'has 2,001 columns, more than the 2,000 allowed: column 2001 is "c2001"' in text
    assert pointers == ["#/columns/c2001"]


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "\r", "\0", "é", "→"])
def test_unusable_delimiters_are_refused(delimiter: str) -> None:
    with pytest.raises(InvalidInput, match="not usable; give one ASCII character") as caught:
        cutter_of("csv", delimiter)
    assert caught.value.problems[0].pointer == "#/query/delimiter"


# the text


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_latin_1_is_recognised_with_line_and_byte(size: int) -> None:
    rows = b"".join(b"%d,x\n" % i for i in range(1000))
    text, pointers = refusal(b"a,b\n" + rows + "1,Zoë\n".encode("latin-1"), None, size)
    assert f"Line 1002 is not UTF-8: byte 0xeb at byte offset {4 + len(rows) + 4:,} of the file" in text
    assert "iconv -f LATIN1 -t UTF-8" in text
    assert pointers == ["#/line/1002"]


@pytest.mark.parametrize("data", [b"caf\xe9,b\n1,2\n", b'a,b\n1,"\xe9', b"a,b\n1,\xc3", b"a\n" + b"\xe9" * 100])
def test_bad_utf_8_is_named_rather_than_what_follows_from_it(data: bytes) -> None:
    assert "is not UTF-8: byte 0x" in refusal(data, CsvCutter(limits=SMALL))[0]


@pytest.mark.parametrize("size", [1, 1000])
def test_nul_is_refused_with_line_and_byte(size: int) -> None:
    text, pointers = refusal(b"\xef\xbb\xbfa,b\n1,2\n3,\x004\n", None, size)
    assert "Line 3 holds a NUL byte (at byte offset 13 of the file)" in text
    assert "tr -d '\\000'" in text
    assert pointers == ["#/line/3"]


@pytest.mark.parametrize("size", [2, 1000])
@pytest.mark.parametrize(
    ("encoding", "named"), [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE")]
)
def test_utf_16_is_recognised(encoding: str, named: str, size: int) -> None:
    text, _ = refusal("name,age\nZoë,42\n".encode(encoding), None, size)
    assert re.search(rf"UTF-16.*iconv -f {named} -t UTF-8", text)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
        (b"PK\x03\x04\x14\0\x06\0\x08\0", "a ZIP archive or an Excel workbook"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
        (b"PAR1\x15\x04\x15\x10", "a Parquet file"),
        (b"\x1f\x8b\x08\0\0\0", "compressed twice with gzip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", r"an old Excel workbook"),
    ],
)
@pytest.mark.parametrize("cutter", [CsvCutter, NdjsonCutter])
def test_other_kinds_of_files_are_named(data: bytes, named: str, cutter: type[CsvCutter | NdjsonCutter]) -> None:
    text, _ = refusal(data, cutter())
    assert text.startswith(f"The file is {named}")
    assert f"Export the table as {cutter.kind} in UTF-8" in text


def test_carriage_returns_alone_do_not_end_lines() -> None:
    for text in ("a,b\r1,2\r3,4\r", "a,b\r1,2"):
        message, pointers = refusal(text)
        assert "Line 1 holds a carriage return (CR) without a line feed outside quotes, at byte offset 3" in message
        assert "tr '\\r' '\\n'" in message
        assert pointers == ["#/line/1"]
    for text in (
        "a,b\n1,2\r\n3\r,4\n",
        "a,b\n1,2\r\n3,4\r",
        'a,b\n"1\n",3\r4\n',
        'a,b\n"1\n"x",3\r4\n',
        'a,b\nx"\n\r"1"',
    ):
        assert refusal(text)[0].startswith("Line 3 ")


def test_a_file_of_carriage_returns_is_refused_without_reading_it_all() -> None:
    taken = 0

    def blocks() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"1,2\r" * 4096

    with pytest.raises(InvalidInput, match="carriage return"):
        list(pieces(CsvCutter(), blocks()))
    assert taken < 20


# long records and quotes that are not closed


@pytest.mark.parametrize("size", [5, 10_000])
def test_long_records_are_refused_where_they_begin(size: int) -> None:
    limits = Limits(max_record_bytes=100, chunk_bytes=300)
    assert cut("a\n" + "x" * 99 + "\n1\n", CsvCutter(limits=limits), size)[0].first_line == 2
    for tail in ("\n1\n", ""):
        text, pointers = refusal("a\n1\n2\n" + "x" * 101 + tail, CsvCutter(limits=limits), size)
        assert "The record that begins on line 4 is longer than the 100 bytes allowed" in text
        assert "quote" not in text
        assert pointers == ["#/line/4"]


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("size", [5, 10_000])
def test_a_long_quoted_record_hints_at_the_quote(size: int, closed: bool) -> None:
    limits = Limits(max_record_bytes=100, chunk_bytes=300)
    text, _ = refusal('a\n1\n"2\n' + "3\n" * 60 + ('"\n' if closed else "4\n" * 90), CsvCutter(limits=limits), size)
    assert (
        "line 3 is longer than the 100 bytes allowed. It runs on inside quotes: a quote was probably not closed" in text
    )


def test_a_long_record_that_is_cut_amid_a_character_is_called_long() -> None:
    text, _ = refusal("a\n" + "é" * 100, CsvCutter(limits=SMALL), 3)
    assert "begins on line 2 is longer than the 64 bytes" in text


def test_a_long_header_is_refused() -> None:
    text, _ = refusal("a" * 65, CsvCutter(limits=SMALL), 3)
    assert "begins on line 1 is longer than the 64 bytes" in text


@pytest.mark.parametrize("tail", ['3,"4\n5,6\n', '3,"', '3,"4""', '3,"4\n5""6'])
@pytest.mark.parametrize("before", ["1,2\n", '5" pipe,2\n'])
def test_a_quote_that_is_never_closed_is_refused(before: str, tail: str) -> None:
    text, pointers = refusal(f"a,b\n{before}{tail}")
    assert text.startswith(
        "The record that begins on line 3 does not end: a quote opens a cell in it and is not closed"
    )
    assert pointers == ["#/line/3"]


def test_the_buffer_stays_bounded_whatever_the_file() -> None:
    def blocks() -> Iterator[bytes]:
        yield b'a,b\n1,"'
        for _ in range(2000):
            yield b"x" * 65_536

    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match="line 2 is longer than the 1,048,576 bytes allowed"):
            list(pieces(CsvCutter(), blocks()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * MIB


# NDJSON


@pytest.mark.parametrize("size", [1, 1000])
def test_ndjson_is_cut_by_lines(size: int) -> None:
    cutter = NdjsonCutter()
    text = '\ufeff\n \t\r\n{"id": 1, "né": "\\"\\n,"}\r\n  \n{"id": 2}\n\n{bad\n[]'
    found = cut(text, cutter, size)
    assert cutter.columns == ["id", "né"]
    assert [(piece.first_row, piece.rows, piece.first_line) for piece in found] == [(1, 4, 3)]
    assert found[0].data.decode() == text[text.index("{") :]


def test_ndjson_pieces_are_contiguous() -> None:
    lines = [json.dumps({"n": i}) + "\n" for i in range(500)]
    found = cut("".join(lines), NdjsonCutter(Limits(chunk_bytes=300, first_piece_bytes=50)), 13)
    assert len(found) > 10
    assert b"".join(piece.data for piece in found).decode() == "".join(lines)
    assert all(piece.first_row == piece.first_line for piece in found)
    assert all(piece.data.startswith(b'{"n": %d}' % (piece.first_row - 1)) for piece in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "The file is empty; expected one JSON object per line"),
        (" \n\n", "The file is empty"),
        ("\n[1,2]\n", r"Line 2 holds an array, not an object\..*jq -c"),
        ('[{"a": 1},\n{"a": 2}]\n', r"Line 1 is not JSON.*jq -c"),
        ("42\n", "Line 1 holds a number, not an object"),
        ("{}\n", "Line 1 holds an empty object"),
        ("age,income\n", "Line 1 is not JSON .*Expected one JSON object per line"),
        ("[" * 100_000 + "\n", "Line 1 is not JSON"),
        ('{"a": ' + "9" * 5000 + "}\n", "Line 1 is not JSON"),
        ('{"a\\u0000": 1}\n', r'The key "a\\u0000" on line 1 holds a NUL or a lone surrogate'),
        ('{"\\ud800": 1}\n', r'The key "\\ud800" on line 1 holds a NUL or a lone surrogate'),
        ('{" ": 1}\n', "Column 1 of 1 on line 1 has no name"),
        (json.dumps(dict.fromkeys(map(str, range(2001)))), "has 2,001 columns, more than the 2,000 allowed"),
        ('{"a": "\0"}\n', "Line 1 holds a NUL byte"),
    ],
)
def test_ndjson_refusals(text: str, said: str) -> None:
    assert re.search(said, refusal(text, NdjsonCutter())[0])


def test_ndjson_text_and_length_are_checked_alike() -> None:
    assert "Line 2 is not UTF-8" in refusal(b'{"a": 1}\n{"a": "\xe9"}\n', NdjsonCutter())[0]
    text, _ = refusal('{"a": 1}\n{"a": "' + "x" * 100, NdjsonCutter(SMALL), 10)
    assert "begins on line 2 is longer than the 64 bytes" in text
