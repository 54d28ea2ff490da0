"""Fuzzed CSV files through the whole pipeline: never a 500, and never a wrong number of rows accounted for."""

from __future__ import annotations

import csv_inputs
from in_process import InProcess
from judge import Tally, judge

SEED, INPUTS, TOGETHER = 5, 500, 50


def test_every_row_of_generated_files_is_accounted_for(inside: InProcess) -> None:
    tally = Tally()
    for first in range(0, INPUTS, TOGETHER):
        judge(inside, [(number, csv_inputs.make(SEED, number)) for number in range(first, first + TOGETHER)], tally)
    assert tally.mismatches == []
    assert tally.rows > INPUTS, "the inputs are hardly ever taken; the generator is too wild"
    assert {"202 taken", "422 nul", "422 encoding", "422 open quote", "422 bare return"} <= set(tally.outcomes)
