"""The reference of a trained version: whatever the sample, the types of the training are inferred from it again."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from labelled_files import people, written

from registry.reference import infer_column, read_reference
from training.dataset import read_labelled
from training.reference_sample import write_reference
from training.rows import Rows


def rows_of(frame: pd.DataFrame, folder: Path) -> Rows:
    path = written(frame, folder / "data.csv")
    return read_labelled(path, target="left", key="id", max_rows=10**6, seed=1).rows


def tricky(rows: int = 6_000) -> pd.DataFrame:
    """Columns whose type hangs on a few rows that a sample would miss."""
    random = np.random.default_rng(5)
    once = {"none": None, "word": "A7", "gap": "", "flag": None}
    frame = pd.DataFrame(
        {
            "id": [f"k{number}" for number in range(rows)],
            "nearly_numbers": random.integers(0, 90, rows).astype(str).astype(object),
            "nearly_full": random.normal(size=rows),
            "whole": random.integers(0, 1000, rows).astype(float),
            "seldom": np.where(np.arange(rows) == 0, "x", "y"),
            "many_words": [f"w{min(number, 150)}" for number in range(rows)],
            "flag": random.choice(np.array([True, False], object), rows),
            "left": random.integers(0, 2, rows),
        }
    )
    frame.loc[2, "nearly_numbers"] = once["word"]
    frame.loc[4, "nearly_full"] = np.nan
    frame.loc[6, "flag"] = once["flag"]
    return frame


def test_types_that_hang_on_a_few_rows_survive_the_sample(tmp_path: Path) -> None:
    rows = rows_of(tricky(), tmp_path)
    path = tmp_path / "reference.csv"
    size = write_reference(rows, np.arange(3_000, 6_000), path, size=500, seed=1)
    assert 500 < size < 800
    sample = read_reference(path)
    for column in rows.signature.columns:
        found = infer_column(column.name, sample.columns[column.name])
        assert (found.type, found.nullable) == (column.type, column.nullable), column.name
        if column.type == "category":
            assert found.categories == column.categories
    assert {column.name: column.type for column in rows.signature.columns} == {
        "nearly_numbers": "category",
        "nearly_full": "number",
        "whole": "number",
        "seldom": "category",
        "many_words": "text",
        "flag": "boolean",
    }


def test_most_of_it_are_rows_that_were_not_fitted_on_and_their_cells_are_exact(tmp_path: Path) -> None:
    frame = people(2_000).drop(columns=["shade", "price"])
    rows = rows_of(frame, tmp_path)
    path = tmp_path / "reference.csv"
    write_reference(rows, np.arange(1_500, 2_000), path, size=400, seed=1)
    with path.open(newline="") as file:
        records = list(csv.DictReader(file))
    numbers = [int(record["id"][1:]) for record in records]
    assert sum(number >= 1_500 for number in numbers) >= 400
    for record in records:
        source = frame.iloc[int(record["id"][1:])]
        assert record["left"] == str(source["left"])
        assert record["amount"] == ("" if pd.isna(source["amount"]) else repr(float(source["amount"])))
        assert record["region"] == ("" if pd.isna(source["region"]) else source["region"])


@pytest.mark.parametrize("rows", [40, 90])
def test_of_a_small_file_all_rows_may_be_needed(tmp_path: Path, rows: int) -> None:
    """With few rows a handful of words is text, because more than half of them differ."""
    frame = people(rows)[["id", "amount", "left"]].assign(
        word=[f"w{number % (rows // 2 - 2)}" for number in range(rows)]
    )
    found = rows_of(frame, tmp_path)
    write_reference(found, np.arange(rows - 15, rows), tmp_path / "reference.csv", seed=1)
    sample = read_reference(tmp_path / "reference.csv")
    for column in found.signature.columns:
        assert infer_column(column.name, sample.columns[column.name]).type == column.type
