"""Rows that kill their worker, never end, or make the model raise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from customers import Customers
from harness import Harness
from marked import EAT, EXIT, HOARD, LOOP, RAISE, SEGFAULT
from trial import Trial

Begin = Callable[[int | str, str], Trial]

POISON = {"SIGSEGV": SEGFAULT, "exit": EXIT, "endless loop": LOOP, "memory that is never given back": HOARD}


@pytest.mark.parametrize("what", POISON)
def test_a_row_that_ends_its_worker_costs_itself_only(
    what: str, begin: Begin, harness: Harness, customers: Customers
) -> None:
    trial = begin(20, f"a row makes the model end its process: {what}")
    file = customers.file(4, {3: (POISON[what], "worker_crash")})
    trial.inject(lambda: None)
    job_id = trial.submit(file)
    assert trial.judge(job_id, file).problems == []


def test_a_row_that_wants_more_memory_than_there_is_costs_itself_only(
    begin: Begin, harness: Harness, customers: Customers
) -> None:
    trial = begin(20, "a row makes the model ask for more memory than a child may have")
    file = customers.file(1_000, {700: (EAT, "model_error")})
    trial.inject(lambda: None)
    assert trial.judge(trial.submit(file), file).problems == []
    assert trial.line.rescued == 0


def test_a_model_that_raises_on_some_rows_scores_the_others(
    begin: Begin, harness: Harness, customers: Customers
) -> None:
    trial = begin(21, "the model raises on one row in 10,000")
    bad = range(5_000, 50_000, 10_000)
    file = customers.file(50_000, dict.fromkeys(bad, (RAISE, "model_error")))
    trial.line.injected = len(bad)
    assert trial.judge(trial.submit(file), file).problems == []


def test_a_model_that_raises_on_every_row_fails_the_job(begin: Begin, harness: Harness, customers: Customers) -> None:
    trial = begin(21, "the model raises on every row")
    file = customers.file(2_000, dict.fromkeys(range(1, 2_001), (RAISE, "model_error")))
    trial.line.injected = 2_000
    job_id = trial.submit(file)
    assert trial.judge(job_id, file).problems == []
    assert harness.client.job(job_id).state == "failed"
