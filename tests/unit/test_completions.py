"""Whoever uploads learns whether records are waited for, which come before files."""

from __future__ import annotations

import pytest

from api.completions import Completions
from db.engine import create_engine
from db.ids import uuid7


@pytest.fixture
def completions(monkeypatch: pytest.MonkeyPatch) -> Completions:
    """That does not begin to listen: nothing is to end here."""
    monkeypatch.setattr(Completions, "_start", lambda _: None)
    return Completions(create_engine("postgresql://nobody@localhost/none", name="tests"), limit=2)


def test_own_records_are_awaited_until_the_wait_is_over(completions: Completions) -> None:
    with completions.expecting(uuid7(), own_records=True), completions.expecting(uuid7()):
        assert completions.records_are_awaited
        with completions.expecting(uuid7(), own_records=True) as place:
            assert place is None, "all places are taken"
        assert completions.records_are_awaited
    assert not completions.records_are_awaited


def test_a_file_that_is_awaited_slows_down_no_other(completions: Completions) -> None:
    with completions.expecting(uuid7()):
        assert not completions.records_are_awaited
