"""What a user is told about the columns of an upload."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from errors import InvalidInput
from registry.signature import Column, Output, Signature

FLIGHTS = Signature(
    columns=[
        Column(name="carrier", type="category", categories=["AA", "UA"]),
        Column(name="distance", type="number", minimum=17.0, maximum=4983.0),
        Column(name="dep_hour", type="integer", nullable=True),
    ],
    key="flight_id",
    output=Output(kind="classification", classes=[0, 1], class_type="integer", positive=1, has_probability=True),
)


def problems(names: list[str]) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        FLIGHTS.check_columns(names)
    return {problem.pointer: problem.detail for problem in caught.value.problems}


def test_further_columns_and_another_order_are_fine():
    FLIGHTS.check_columns(["note", "dep_hour", "distance", "carrier"])


def test_all_missing_columns_are_named_at_once_with_the_nearest_name():
    assert problems(["carrier", "distanc", "weather"]) == {
        "#/columns/distance": "column 'distance' is missing; did you mean 'distanc' (present, but not expected)?",
        "#/columns/dep_hour": "column 'dep_hour' is missing",
    }


@pytest.mark.parametrize("written", ["Dep_Hour", "dep hour", "DEPHOUR", "dep-hour", " dep_hour"])
def test_case_spaces_and_underscores_do_not_hide_the_nearest_name(written):
    found = problems(["carrier", "distance", written])
    assert f"did you mean '{written}'" in found["#/columns/dep_hour"]


def test_an_expected_column_is_never_suggested_for_another():
    signature = Signature(columns=[Column(name="age", type="number"), Column(name="ages", type="number")])
    with pytest.raises(InvalidInput) as caught:
        signature.check_columns(["age"])
    assert caught.value.problems[0].detail == "column 'ages' is missing"


@pytest.mark.parametrize(("char", "told"), [(";", "';'"), ("\t", "a tab"), ("|", "'|'")])
def test_a_header_in_one_piece_points_at_the_delimiter(char, told):
    with pytest.raises(InvalidInput, match="delimiter") as caught:
        FLIGHTS.check_columns([char.join(FLIGHTS.names)])
    assert told in str(caught.value)
    assert caught.value.problems[0].pointer == "#/query/delimiter"


def test_names_in_pointers_are_escaped():
    signature = Signature(columns=[Column(name="a/b~c", type="number")])
    with pytest.raises(InvalidInput) as caught:
        signature.check_columns(["x"])
    assert caught.value.problems[0].pointer == "#/columns/a~1b~0c"


def test_a_record_needs_every_column_even_the_nullable_ones():
    FLIGHTS.check_record({"carrier": "UA", "distance": 1, "dep_hour": None, "note": "x"})
    with pytest.raises(InvalidInput) as caught:
        FLIGHTS.check_record({"carrier": "UA", "Distance": 1}, "#/inputs/3")
    assert [problem.pointer for problem in caught.value.problems] == ["#/inputs/3/distance", "#/inputs/3/dep_hour"]
    assert "did you mean 'Distance'" in caught.value.problems[0].detail


@pytest.mark.parametrize("classes", [[0, 1], [0.0, 1.0], ["0", "1"], [False, True]])
def test_json_keeps_the_type_of_the_classes(classes):
    output = Output(kind="classification", classes=classes, positive=classes[1])
    stored = Signature(columns=FLIGHTS.columns, output=output).model_dump_json()
    again = Signature.model_validate_json(stored).output
    assert again is not None
    assert again.classes is not None
    assert [(type(label), label) for label in again.classes] == [(type(label), label) for label in classes]
    assert type(again.positive) is type(classes[1])


def test_a_name_cannot_stand_twice():
    with pytest.raises(ValidationError, match="same name"):
        Signature(columns=[Column(name="a", type="number"), Column(name="a", type="text")])


def test_what_the_api_imports_needs_no_ml_library():
    code = (
        "import sys, registry.signature, registry.store, registry.row_text;"
        "print({'numpy', 'pandas', 'pyarrow', 'sklearn', 'joblib', 'skops'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
