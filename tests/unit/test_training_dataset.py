"""Reading a labelled file: the types and cells of a worker, a fair sample of a large file, what is left out and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from labelled_files import people, written

from errors import InvalidInput
from registry.model_input import to_model_input
from registry.parse import parse_csv
from training.dataset import Dataset, read_labelled
from training.target import target_of


def read(path: Path, **options: Any) -> Dataset:
    given = {"target": "left", "key": "id", "max_rows": 10_000, "seed": 1, **options}
    return read_labelled(path, **given)


def test_cells_are_what_a_worker_would_hand_to_the_model(tmp_path: Path) -> None:
    path = written(people(300).drop(columns=["shade", "price"]), tmp_path / "data.csv")
    rows = read(path).rows
    header, _, data = path.read_bytes().partition(b"\n")
    parsed = parse_csv(
        data,
        header=header.decode().split(","),
        delimiter=",",
        signature=rows.signature,
        key_column="id",
        first_row=1,
        first_line=2,
        max_cell_chars=10_000,
    )
    assert not parsed.errors
    pd.testing.assert_frame_equal(rows.frame, to_model_input(parsed.features, rows.signature))
    assert rows.keys.to_pylist() == parsed.keys.to_pylist()
    types = {column.name: (column.type, column.nullable) for column in rows.signature.columns}
    assert types == {
        "amount": ("number", True),
        "visits": ("integer", False),
        "region": ("category", True),
        "active": ("boolean", False),
        "note": ("text", False),
    }


def test_the_time_is_found_and_is_no_feature(tmp_path: Path) -> None:
    path = written(people(200), tmp_path / "data.csv")
    found = read(path)
    assert found.time == "day"
    assert "day" not in found.rows.signature.names
    assert found.rows.times is not None
    assert np.diff(found.rows.times).tolist() == [3_600_000_000] * 199
    assert read(path, find_time=False).time is None
    with pytest.raises(InvalidInput, match="--time visits"):
        read(path, time="visits")


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    frame = people(200)
    frame["left"] = frame["left"].astype(object)
    frame.loc[[3, 5], "left"] = ""
    path = written(frame, tmp_path / "data.csv")
    with path.open("a") as file:
        file.write("p9,too,few\n")
    found = read(path)
    assert len(found.rows) == 198
    told = "\n".join(found.notes)
    for expected in ("1 rows cannot be read", "2 rows have no 'left'", "without any value were left out: empty"):
        assert expected in told


def test_of_a_large_file_a_fair_sample_is_drawn(tmp_path: Path) -> None:
    """It spans several pieces of the file; each part of it has its share, and the same seed draws the same."""
    path = tmp_path / "large.csv"
    rows = 60_000
    path.write_text("id,x,left\n" + "".join(f"{n},{n}.5,{n % 2}\n" for n in range(rows)))
    first, again, other = (read(path, max_rows=6_000, seed=seed) for seed in (1, 1, 2))
    ids = np.array([int(key) for key in first.rows.keys.to_pylist()])
    assert len(ids) == len(set(ids.tolist())) == 6_000
    assert (np.diff(ids) > 0).all()
    assert np.abs(np.bincount(ids // 6_000) - 600).max() < 5 * np.sqrt(600 * 0.9)
    assert ids.tolist() == [int(key) for key in again.rows.keys.to_pylist()]
    assert ids.tolist() != [int(key) for key in other.rows.keys.to_pylist()]
    assert "60,000 rows were read; 6,000 of them were drawn at random" in first.notes[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"target": "lost"}, "--target names 'lost'"),
        ({"key": "no"}, "--key names 'no'"),
        ({"time": "no"}, "--time names 'no'"),
        ({"target": "empty"}, "no row has a 'empty'"),
    ],
)
def test_a_wrong_column_is_told(tmp_path: Path, options: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        read(written(people(50), tmp_path / "data.csv"), **options)


@pytest.mark.parametrize(
    ("name", "kind", "classes"),
    [
        ("left", "classification", (0, 1)),
        ("active", "classification", (False, True)),
        ("shade", "classification", ("dark", "light", "middle")),
        ("price", "regression", None),
        ("visits", "regression", None),  # thirty different numbers
    ],
)
def test_the_target_says_what_is_learned(tmp_path: Path, name: str, kind: str, classes: Any) -> None:
    dataset = read(written(people(600), tmp_path / "data.csv"), target=name)
    target = target_of(name, dataset.rows.labels)
    assert (target.kind, target.classes) == (kind, classes)
    assert target.values(dataset.rows.labels).tolist() == people(600)[name].tolist()


def test_targets_that_cannot_be_learned_are_refused(tmp_path: Path) -> None:
    frame = people(300).assign(same=1, rare=["seldom"] * 3 + ["often"] * 297)
    path = written(frame, tmp_path / "data.csv")
    for name, told in (("same", "holds 1 different"), ("rare", r"seldom \(3\)"), ("note", "holds 300 different")):
        with pytest.raises(InvalidInput, match=told):
            target_of(name, read(path, target=name).rows.labels)
    with pytest.raises(InvalidInput, match="only numbers are predicted by regression"):
        target_of("shade", read(path, target="shade").rows.labels, "regression")
