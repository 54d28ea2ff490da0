"""What each JSON value means as a cell."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.parse import parse_csv, parse_ndjson
from registry.signature import Column, Signature


def signature(*columns: tuple[str, str], nullable: bool = True) -> Signature:
    return Signature(columns=[Column(name=name, type=kind, nullable=nullable) for name, kind in columns])


def parse(data: bytes, shape: Signature, **options):
    defaults = {"key_column": None, "first_row": 1, "first_line": 1, "max_cell_chars": 100}
    return parse_ndjson(data, signature=shape, **(defaults | options))


def one_cell(kind: str, value: str, nullable: bool = True):
    parsed = parse(f'{{"x": {value}}}\n'.encode(), signature(("x", kind), nullable=nullable))
    assert len(parsed.rows) + len(parsed.errors) == 1
    return parsed.errors[0].code if parsed.errors else parsed.features["x"][0].as_py()


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        ("number", "1", 1.0), ("number", "-2.5e3", -2500.0), ("number", "null", None), ("number", '"1"', "wrong_type"),
        ("number", "true", "wrong_type"), ("number", "[1]", "wrong_type"), ("number", "1e999", "non_finite"),
        ("number", "9" * 400, "non_finite"), ("number", "-" + "9" * 5000, "non_finite"), ("number", "NaN", "invalid_json"),
        ("number", "Infinity", "invalid_json"), ("integer", "3", 3.0), ("integer", "3.0", 3.0),
        ("integer", "3.5", "wrong_type"), ("integer", "9007199254740992", "wrong_type"),
        ("boolean", "true", True), ("boolean", "0", False), ("boolean", "2", "wrong_type"),
        ("boolean", '"true"', "wrong_type"), ("boolean", "null", None),
        ("category", '"NA"', "NA"), ("category", '""', None), ("category", "12", "wrong_type"),
        ("text", '"a"', "a"), ("text", "{}", "wrong_type"), ("text", r'"\u0000"', "wrong_type"),
        ("text", r'"\ud800"', "wrong_type"), ("text", '"' + "a" * 101 + '"', "too_long"),
        ("timestamp", '"2013-02-30"', "wrong_type"), ("timestamp", "20130430", "wrong_type"), ("timestamp", "null", None),
    ],
)  # fmt: skip
def test_values(kind, value, found):
    assert one_cell(kind, value) == found


def test_null_where_none_may_be():
    assert one_cell("number", "null", nullable=False) == "missing_value"
    assert one_cell("text", '""', nullable=False) == "missing_value"


def test_each_line_is_a_row_or_an_error():
    data = (
        b'{"n": 1, "id": "a"}\r\n\n  \n{"n": 2, "id": 7}\n{"n": 3\n[1, 2]\n{"N": 3, "id": "c"}\n'
        b'{"n": 4, "id": true}\n{"n": 5}\n\xff\n{"n": 6, "id": null} '
    )
    parsed = parse(data, signature(("n", "number")), key_column="id", first_row=10, first_line=100)
    assert parsed.rows.tolist() == [10, 11, 18]
    assert parsed.keys.to_pylist() == ["a", "7", None]
    assert [(error.row, error.line, error.code, error.column, error.key) for error in parsed.errors] == [
        (12, 104, "invalid_json", None, None),
        (13, 105, "invalid_json", None, None),
        (14, 106, "missing_column", "n", "c"),
        (15, 107, "wrong_type", "id", None),
        (16, 108, "missing_column", "id", None),
        (17, 109, "invalid_json", None, None),
    ]
    assert "did you mean 'N'" in parsed.errors[2].message
    assert parsed.errors[0].raw == '{"n": 3'
    assert "a list" in parsed.errors[1].message
    assert parsed.record(11) == ('{"n": 2, "id": 7}', 103)


def test_deep_nesting_is_an_error_of_its_row():
    parsed = parse(b'{"n": ' + b"[" * 100_000 + b"\n" + b'{"n": 1}\n', signature(("n", "number")))
    assert parsed.rows.tolist() == [2]
    assert parsed.errors[0].code in ("invalid_json", "wrong_type")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
        ),
        min_size=1,
    )
)  # fmt: skip
def test_a_record_means_the_same_as_json_and_as_csv(records):
    shape = signature(("n", "number"), ("b", "boolean"), ("w", "category"))
    as_json = "".join(json.dumps({"n": n, "b": b, "w": w}) + "\n" for n, b, w in records)
    as_csv = "".join(f'{n!r},{b},"{w.replace(chr(34), chr(34) * 2)}"\n' for n, b, w in records)
    one = parse(as_json.encode(), shape)
    other = parse_csv(
        as_csv.encode(), header=shape.names, delimiter=",", signature=shape, key_column=None,
        first_row=1, first_line=1, max_cell_chars=100,
    )  # fmt: skip
    assert not one.errors
    assert one.features.to_pylist() == other.features.to_pylist()
