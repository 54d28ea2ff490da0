"""The benchmark's comparison must not call results equal that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.equality import compare

THEIRS = "id,prediction,probability\na,0,0.25\nb,1,0.75\nc,0,0.125\n"


def _equal(tmp_path: Path, ours: str) -> bool:
    (tmp_path / "ours.csv").write_text(ours)
    (tmp_path / "theirs.csv").write_text(THEIRS)
    return compare(tmp_path / "ours.csv", tmp_path / "theirs.csv", "id").equal


def test_rounding_in_the_last_place_is_equal_and_further_columns_do_not_matter(tmp_path: Path) -> None:
    ours = "id,prediction,probability,model_version\na,0,0.25000000000000006,1.0.0\nb,1,0.75,1.0.0\nc,0,0.125,1.0.0\n"
    assert _equal(tmp_path, ours)


@pytest.mark.parametrize(
    "ours",
    [
        THEIRS.replace("c,0,0.125\n", ""),
        THEIRS.replace("a,0,0.25\nb,1,0.75\n", "b,1,0.75\na,0,0.25\n"),
        THEIRS.replace("b,1", "b,0"),
        THEIRS.replace("b,1", "b,"),
        THEIRS.replace("0.25", "0.2500000001"),
        THEIRS.replace("0.25", "nan"),
        THEIRS.replace("0.25", ""),
    ],
    ids=["a row lost", "swapped", "another class", "no class", "off by 1e-10", "NaN", "no probability"],
)
def test_each_difference_is_noticed(tmp_path: Path, ours: str) -> None:
    assert not _equal(tmp_path, ours)
