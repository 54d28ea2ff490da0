"""What each CSV cell means, and that a broken neighbour changes nothing."""

from __future__ import annotations

import csv
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from errors import InvalidInput
from registry.parse import Parsed, parse_csv
from registry.signature import Column, Signature

TYPES = ["number", "integer", "boolean", "category", "text", "timestamp"]


def signature(*columns: tuple[str, str], nullable: bool = True) -> Signature:
    return Signature(columns=[Column(name=name, type=kind, nullable=nullable) for name, kind in columns])


def parse(data: bytes, shape: Signature, **options) -> Parsed:
    defaults = {
        "header": shape.names,
        "delimiter": ",",
        "key_column": None,
        "first_row": 1,
        "first_line": 2,
        "max_cell_chars": 100,
    }
    return parse_csv(data, signature=shape, **(defaults | options))


def one_cell(kind: str, cell: str, nullable: bool = True):
    """The value of a cell, or its error's code; a second column keeps a blank cell from being a blank line."""
    shape = signature(("x", kind), nullable=nullable)
    parsed = parse(f"{cell},z\n".encode(), shape, header=["x", "rest"])
    assert len(parsed.rows) + len(parsed.errors) == 1
    return parsed.errors[0].code if parsed.errors else parsed.features["x"][0].as_py()


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1.0), (" 1 ", 1.0), ("\t-2.5", -2.5), ("+3", 3.0), (".5", 0.5), ("5.", 5.0), ("1E3", 1000.0),
        ("0.1", 0.1), ("-0", -0.0), ("1e-400", 0.0), ('"1.5"', 1.5), ("12345678901234567890", 12345678901234567890.0),
    ],
)  # fmt: skip
def test_numbers(cell, value):
    found = one_cell("number", cell)
    assert found == value
    assert math.copysign(1, found) == math.copysign(1, value)


@pytest.mark.parametrize("kind", ["number", "integer", "boolean", "timestamp"])
@pytest.mark.parametrize("cell", ["", " ", '""', "NA", "N/A", "NaN", "nan", "null", "NULL", "None", " NA "])
def test_spellings_of_null(kind, cell):
    assert one_cell(kind, cell) is None
    assert one_cell(kind, cell, nullable=False) == "missing_value"


@pytest.mark.parametrize("kind", ["category", "text"])
@pytest.mark.parametrize("cell", ["NA", "nan", "null", "None", " "])
def test_in_words_only_the_empty_cell_is_null(kind, cell):
    assert one_cell(kind, cell) == cell
    assert one_cell(kind, "") is None
    assert one_cell(kind, '""', nullable=False) == "missing_value"


@pytest.mark.parametrize("kind", ["number", "integer"])
@pytest.mark.parametrize("cell", ["inf", "-inf", "Infinity", "1e999", "-1e999", "-nan", "NAN", "nan(1)"])
def test_what_is_not_finite(kind, cell):
    assert one_cell(kind, cell) == "non_finite"


@pytest.mark.parametrize("kind", ["number", "integer"])
@pytest.mark.parametrize(
    "cell", ["1_000", "0x10", "٣", "1 2", "--1", "1e", ".", "-", "12abc", "\u00a01", '"1,5"', "n/a"]
)
def test_what_is_not_a_number(kind, cell):
    assert one_cell(kind, cell) == "wrong_type"


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("3", 3.0), ("3.0", 3.0), ("1e3", 1000.0), ("9007199254740991", 2.0**53 - 1), ("-9007199254740991", 1 - 2.0**53),
        ("3.5", "wrong_type"), ("9007199254740992", "wrong_type"), ("9007199254740993", "wrong_type"), ("1e30", "wrong_type"),
    ],
)  # fmt: skip
def test_integers_are_whole_and_exact(cell, value):
    assert one_cell("integer", cell) == value


@pytest.mark.parametrize(
    ("cell", "value"),
    [("true", True), ("True", True), ("TRUE", True), ("1", True), ("false", False), ("False", False), ("FALSE", False),
     ("0", False), (" true", True), ("yes", "wrong_type"), ("2", "wrong_type"), ("tRUE", "wrong_type")],
)  # fmt: skip
def test_booleans(cell, value):
    assert one_cell("boolean", cell) == value


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("2013-04-30", "2013-04-30 00:00:00"),
        ("2013-04-30 08:15:00", "2013-04-30 08:15:00"),
        ("2013-04-30T08:15:00Z", "2013-04-30 08:15:00"),
        (" 2013-04-30T08:15:00.25+02:00", "2013-04-30 06:15:00.250000"),
        ("2013-02-30", "wrong_type"),
        ("30.4.2013", "wrong_type"),
        ("2013", "wrong_type"),
    ],
)
def test_timestamps(cell, value):
    assert str(one_cell("timestamp", cell)) == value


def test_timestamps_with_and_without_offset_in_one_chunk():
    parsed = parse(b"2013-01-01T01:00:00+01:00\n2013-01-01\nsoon\n", signature(("t", "timestamp")))
    assert [str(value) for value in parsed.features["t"].to_pylist()] == ["2013-01-01 00:00:00"] * 2
    assert parsed.errors[0].row == 3


def test_a_row_error_tells_row_line_column_key_and_text():
    shape = signature(("n", "number"), ("c", "category"), nullable=False)
    data = b'7,a,k1\n"8","two\nlines",k2\n\nmany,,k3\n1,b,k4,more\n2,b,k5\n'
    parsed = parse(data, shape, header=["n", "c", "id"], key_column="id", first_row=101, first_line=500)
    assert parsed.rows.tolist() == [101, 102, 105]
    assert parsed.keys.to_pylist() == ["k1", "k2", "k5"]
    assert parsed.features["c"].to_pylist() == ["a", "two\nlines", "b"]
    first, second = parsed.errors
    assert (first.row, first.line, first.column, first.code, first.key) == (103, 504, "n", "wrong_type", "k3")
    assert first.raw == "many,,k3"
    assert "'many'" in first.message
    assert "expected a number" in first.message
    assert (second.row, second.line, second.column, second.code, second.key) == (
        104, 505, None, "wrong_field_count", "k4",
    )  # fmt: skip
    assert "4 fields, the header 3" in second.message
    assert parsed.record(102) == ('"8","two\nlines",k2', 501)


def test_records_of_good_rows_can_be_fetched_too():
    parsed = parse(b"1\n\n2\r\n3", signature(("n", "number")), first_row=11)
    assert not parsed.errors
    assert [parsed.record(row) for row in (11, 12, 13)] == [("1", 2), ("2", 4), ("3", 5)]


def test_the_first_bad_cell_from_the_left_is_told():
    shape = signature(("b", "number"), ("a", "number"))
    parsed = parse(b"x,y\n", shape, header=["a", "b"])
    assert [error.column for error in parsed.errors] == ["a"]


def test_a_chunk_without_a_fault_is_never_cut_into_records(monkeypatch):
    """The speed of the whole: padding, quotes, nulls, CRLF and blank lines must not lead to the slow path."""
    monkeypatch.setattr("registry.parse_csv._diagnose", None)
    data = b'1.5,1,true,a,"t ""x""\ny",2013-04-30\r\n\r\nNA,,,,,\n" 2 ",NA,NA,"b,c",t,\n'
    parsed = parse(data, ALL, key_column="c")
    assert parsed.features["n"].to_pylist() == [1.5, None, 2.0]
    assert parsed.features["t"].to_pylist() == ['t "x"\ny', None, "t"]
    for blanks in (b"1\n\n2\n3", b"\n1\n2\n3\n", b"1\r\n\r\n2\n3\n", b"1\n2\n3\n\n\n"):
        assert parse(blanks, signature(("n", "number"))).rows.tolist() == [1, 2, 3]


def test_columns_come_in_the_order_of_the_signature():
    shape = signature(("b", "number"), ("a", "text"))
    parsed = parse(b"one,skip,2\n", shape, header=["a", "note", "b"])
    assert parsed.features.column_names == ["b", "a"]
    assert parsed.features.to_pylist() == [{"b": 2.0, "a": "one"}]


@pytest.mark.parametrize("bad", [b"", b"x,0\n"])
def test_the_key_is_untouched_also_when_it_is_a_feature(bad):
    shape = signature(("id", "integer"), ("n", "number"))
    parsed = parse(b'007,1\n" 8 ",2\n' + bad, shape, key_column="id")
    assert parsed.keys.to_pylist() == ["007", " 8 "]
    assert parsed.features["id"].to_pylist() == [7.0, 8.0]


@pytest.mark.parametrize("bad", [b"", b"x,0\n"])
def test_a_blank_or_null_looking_key_is_a_key(bad):
    parsed = parse(b"1,\n2,NA\n" + bad, signature(("n", "number")), header=["n", "id"], key_column="id")
    assert parsed.keys.to_pylist() == ["", "NA"]


@pytest.mark.parametrize("kind", ["category", "text"])
def test_long_cells_are_counted_in_characters(kind):
    parsed = parse(("é" * 100 + "\n" + "é" * 101 + "\n").encode(), signature(("w", kind)))
    assert parsed.rows.tolist() == [1]
    assert parsed.errors[0].code == "too_long"
    assert "101 characters" in parsed.errors[0].message


def test_a_long_key_is_an_error_too():
    parsed = parse(b"1," + b"k" * 101 + b"\n", signature(("n", "number")), header=["n", "id"], key_column="id")
    assert [(error.code, error.column) for error in parsed.errors] == [("too_long", "id")]


@pytest.mark.parametrize("cell", [b"a\0b", b"\xff\xfe"])
def test_what_postgres_cannot_store_is_an_error_and_is_told_storably(cell):
    parsed = parse(b"ok,1\n" + cell + b",2\n", signature(("w", "text"), ("n", "number")), key_column="w")
    assert parsed.rows.tolist() == [1]
    assert parsed.errors[0].code == "wrong_type"
    told = "".join(str(value) for value in vars_of(parsed.errors[0]))
    assert "\0" not in told
    told.encode()


def vars_of(error):
    return [getattr(error, name) for name in error.__slots__]


def test_a_passed_through_column_may_hold_anything():
    parsed = parse(b"1,\xff\n2,1e999\n", signature(("n", "number")), header=["n", "note"])
    assert parsed.rows.tolist() == [1, 2]


def test_a_byte_order_mark_inside_a_file_is_text():
    parsed = parse("\ufeffa\nb\n".encode(), signature(("w", "text")))
    assert parsed.features["w"].to_pylist() == ["\ufeffa", "b"]


def test_another_delimiter():
    parsed = parse(b'1;"a;b"\nx;c\n', signature(("n", "number"), ("w", "text")), delimiter=";")
    assert parsed.features.to_pylist() == [{"n": 1.0, "w": "a;b"}]
    assert len(parsed.errors) == 1


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n\r\n"])
def test_blank_lines_are_no_records(data):
    parsed = parse(data, signature(("n", "number")))
    assert (len(parsed.rows), parsed.features.num_rows, parsed.errors) == (0, 0, [])


@pytest.mark.parametrize("data", [b'1\n"2', b'x\n"2', b"1\r2\n", b"1\r\r\n2\n"])
def test_a_chunk_that_is_not_whole_records_is_refused(data):
    with pytest.raises(InvalidInput):
        parse(data, signature(("n", "number")))


def test_a_header_without_a_column_is_refused():
    with pytest.raises(InvalidInput, match="distance"):
        parse(b"1\n", signature(("distance", "number")), header=["n"])
    with pytest.raises(InvalidInput, match="key column 'id'"):
        parse(b"1\n", signature(("n", "number")), key_column="id")


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"[+-]?[0-9]{1,25}\.[0-9]{0,30}(e[+-]?[0-9]{1,2})?", fullmatch=True),
    st.sampled_from(["", "NA", " 7", "1e-320", "0.30000000000000004", "2.2250738585072011e-308"]),
)
integers = st.one_of(st.integers(-(2**53) + 1, 2**53 - 1).map(str), st.sampled_from(["", "null", "-0", "1e5", "3.0"]))
booleans = st.sampled_from(["true", "False", "1", "0", "", "NA"])
words = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=6)
moments = st.one_of(st.datetimes().map(lambda when: when.isoformat()), st.sampled_from(["", "2013-01-01T00:00:00Z"]))
good_rows = st.lists(st.tuples(numbers, integers, booleans, words, words, moments), min_size=1, max_size=8)
ALL = signature(*zip("nibctw", TYPES, strict=True))


def as_csv(rows) -> bytes:
    quoted = [",".join('"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\r\n') else cell for cell in row)
              for row in rows]  # fmt: skip
    return "".join(f"{line}\n" for line in quoted).encode()


def bits(parsed: Parsed, rows: int) -> list[tuple]:
    """The first rows, so that a float differs when a bit of it does."""
    return [
        tuple(value.hex() if isinstance(value, float) else value for value in row.values())
        for row in parsed.features.slice(0, rows).to_pylist()
    ]


@settings(max_examples=150, deadline=None)
@given(
    good_rows, st.sampled_from(["x,1,1,a,b,\n", "1,1.5,1,a,b,\n", "1,1,2,a,b,\n", "1\n", "inf,,,,,\n", ",,,,,now\n"])
)
def test_a_bad_row_does_not_change_the_bits_of_the_others(rows, bad):
    data = as_csv(rows)
    alone = parse(data, ALL, key_column="c")
    assert not alone.errors
    beside = parse(data + bad.encode(), ALL, key_column="c")
    assert [error.row for error in beside.errors] == [len(rows) + 1]
    assert bits(beside, len(rows)) == bits(alone, len(rows))
    assert beside.keys.to_pylist() == alone.keys.to_pylist() == [row[3] for row in rows]
    assert beside.rows.tolist() == alone.rows.tolist()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_the_nearest_float(floats):
    for style in (repr, "{:.25e}".format):
        parsed = parse("".join(f"{style(one)}\n" for one in floats).encode(), signature(("n", "number")))
        assert [value.hex() for value in parsed.features["n"].to_pylist()] == [
            float(style(one)).hex() for one in floats
        ]


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet='a1",\n \r', max_size=30))
@example('"a"a,1\n')
@example('a"1,1\n""\n')
def test_every_record_ends_as_a_row_or_an_error_and_is_cut_as_the_csv_module_cuts_it(text):
    shape = signature(("w", "text"), ("n", "number"))
    try:
        parsed = parse(text.encode(), shape)
    except InvalidInput:
        return  # an open quote or a bare CR: the cutter refuses such a file
    records = [record for record in csv.reader(text.splitlines(keepends=True)) if record]
    assert sorted([*parsed.rows.tolist(), *(error.row for error in parsed.errors)]) == list(range(1, len(records) + 1))
    for row, found in zip(parsed.rows.tolist(), parsed.features["w"].to_pylist(), strict=True):
        assert (found or "") == records[row - 1][0]
    for error in parsed.errors:
        assert (error.code == "wrong_field_count") == (len(records[error.row - 1]) != 2)


def test_the_example_of_the_documentation():
    """`docs/reference/cells.md`"""
    shape = Signature(
        columns=[
            Column(name="distance", type="integer"),
            Column(name="delay", type="number", nullable=True),
            Column(name="carrier", type="category"),
        ]
    )
    data = b'007,1400,NA,UA\n008,"1,400",3.5,UA\n009,1400,inf,UA\n010,1400,3.5,NA\n011,1400,3.5\n'
    parsed = parse(data, shape, header=["id", *shape.names], key_column="id")
    assert parsed.keys.to_pylist() == ["007", "010"]
    assert parsed.features.to_pylist() == [
        {"distance": 1400.0, "delay": None, "carrier": "UA"},
        {"distance": 1400.0, "delay": 3.5, "carrier": "NA"},
    ]
    assert [(error.row, error.line, error.key, error.code, error.column) for error in parsed.errors] == [
        (2, 3, "008", "wrong_type", "distance"),
        (3, 4, "009", "non_finite", "delay"),
        (5, 6, "011", "wrong_field_count", None),
    ]
