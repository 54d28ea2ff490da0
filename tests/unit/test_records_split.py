"""Stored chunks taken apart: the caller's own text and lines, halves, and some of the records."""

from __future__ import annotations

import pytest

from records.piece import Format, Piece
from records.split import RawRecord, halve, raw_records, raw_texts, select

QUOTED = b'1,"a\nb"\n\n2,c\r\n3,"d"'


def test_every_record_keeps_its_text_and_line() -> None:
    assert raw_records(QUOTED, "csv") == [RawRecord(0, b'1,"a\nb"'), RawRecord(3, b"2,c"), RawRecord(4, b'3,"d"')]
    assert raw_texts(QUOTED, "csv") == [b'1,"a\nb"', b"2,c", b'3,"d"']


@pytest.mark.parametrize(
    ("format", "data", "texts"),
    [
        ("csv", b"1,2\n3,4\n", [b"1,2", b"3,4"]),
        ("csv", b"1,2\n3,4", [b"1,2", b"3,4"]),
        ("csv", b"1,2\r\n3,4\r\n", [b"1,2", b"3,4"]),
        ("csv", b'1;"2\n3"\n', [b'1;"2', b'3"']),
        ("csv", b" \n\t\n", [b" ", b"\t"]),
        ("csv", b"", []),
        ("csv", b"\n\n", []),
        ("ndjson", b'{"a":1}\n{"a":2}', [b'{"a":1}', b'{"a":2}']),
        ("ndjson", b'\r{"a":1}\n\r\n', [b'\r{"a":1}']),
        ("ndjson", b'{"a":1}\n \n {"a":2}\r\n', [b'{"a":1}', b' {"a":2}']),
    ],
)
def test_texts_have_no_line_ends_and_leave_out_blank_lines(format: Format, data: bytes, texts: list[bytes]) -> None:
    assert raw_texts(data, format) == texts
    assert [record.raw for record in raw_records(data, format)] == texts


def test_the_delimiter_counts() -> None:
    assert raw_texts(b'1;"2\n3"\n', "csv", ";") == [b'1;"2\n3"']


def test_some_records_are_taken_in_the_order_asked_for() -> None:
    assert raw_records(QUOTED, "csv", records=[2, 0]) == [RawRecord(4, b'3,"d"'), RawRecord(0, b'1,"a\nb"')]
    with pytest.raises(IndexError):
        raw_records(QUOTED, "csv", records=[3])


def test_selected_records_all_end_their_lines() -> None:
    assert select(QUOTED, [0, 2], "csv") == b'1,"a\nb"\n3,"d"\n'
    assert select(QUOTED, [1], "csv") == b"2,c\r\n"
    assert select(QUOTED, [], "csv") == b""
    assert select(b'{"a":1}\n\n{"a":2}', [1], "ndjson") == b'{"a":2}\n'
    with pytest.raises(IndexError):
        select(QUOTED, [3], "csv")


def test_a_piece_is_halved_at_its_middle_record() -> None:
    first, second = halve(Piece(11, 3, 21, QUOTED), "csv")
    assert first == Piece(11, 1, 21, b'1,"a\nb"\n\n')
    assert second == Piece(12, 2, 24, b'2,c\r\n3,"d"')
    assert halve(second, "csv") == (Piece(12, 1, 24, b"2,c\r\n"), Piece(13, 1, 25, b'3,"d"'))
    assert halve(Piece(1, 2, 1, b'{"a":1}\n{"a":2}'), "ndjson")[1] == Piece(2, 1, 2, b'{"a":2}')


def test_a_single_record_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="1 rows cannot be cut in two"):
        halve(Piece(1, 1, 2, b'"a\nb"\n'), "csv")
