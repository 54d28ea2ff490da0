"""What a model is given: types that depend on the signature, never on the chunk."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from registry.model_input import to_model_input
from registry.parse import parse_csv
from registry.signature import Column, Signature

COLUMNS = [
    Column(name="n", type="number", nullable=True),
    Column(name="i", type="integer"),
    Column(name="j", type="integer", nullable=True),
    Column(name="b", type="boolean"),
    Column(name="d", type="boolean", nullable=True),
    Column(name="c", type="category", nullable=True, categories=["x", "y"]),
    Column(name="t", type="text", nullable=True),
    Column(name="w", type="timestamp", nullable=True),
]
FULL = b"1.5,1,2,true,false,y,long,2013-04-30\n"
HOLES = b",1,,true,,,,\n"


def model_input(data: bytes, signature: Signature):
    parsed = parse_csv(
        data, header=signature.names, delimiter=",", signature=signature, key_column=None,
        first_row=1, first_line=1, max_cell_chars=100,
    )  # fmt: skip
    assert not parsed.errors
    return to_model_input(parsed.features, signature)


@pytest.mark.parametrize("data", [FULL, HOLES, FULL + HOLES, b""])
@pytest.mark.parametrize("frame", ["object", "category"])
def test_types_do_not_depend_on_the_rows(data, frame):
    found = model_input(data, Signature(columns=COLUMNS, frame=frame))
    words = "category" if frame == "category" else "object"
    assert [str(kind) for kind in found.dtypes] == [
        "float64", "int64", "float64", "bool", "object", words, "object", "datetime64[us]",
    ]  # fmt: skip


def test_values():
    found = model_input(FULL + HOLES, Signature(columns=COLUMNS))
    assert found.iloc[0].tolist() == [1.5, 1, 2.0, True, False, "y", "long", pd.Timestamp("2013-04-30")]
    assert found.iloc[1].isna().tolist() == [True, False, True, False, True, True, True, True]
    assert type(found["c"][0]) is str
    assert found["d"][0] is False
    for name in ("d", "c", "t"):
        assert isinstance(found[name][1], float)
        assert np.isnan(found[name][1])


def test_categories_begin_with_those_of_the_signature():
    found = model_input(
        b",,,true,,z,,\n".replace(b",,,t", b",1,,t") + FULL + HOLES, Signature(columns=COLUMNS, frame="category")
    )
    assert found["c"].cat.categories.tolist()[:2] == ["x", "y"]
    assert found["c"].tolist()[:2] == ["z", "y"]
    assert pd.isna(found["c"][2])


def test_an_array_of_floats():
    signature = Signature(columns=[COLUMNS[0], COLUMNS[1], COLUMNS[4]], frame="array")
    found = model_input(b"1.5,2,true\n,3,\n", signature)
    assert found.dtype == np.float64
    assert np.array_equal(found, [[1.5, 2, 1], [np.nan, 3, np.nan]], equal_nan=True)
