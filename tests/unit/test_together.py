"""Calls at the same time are done as one, each with its own result."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from api.together import Together


class Work:
    """Doubles numbers, and holds the turn whose first number is 0 until it is let go. -1 is what cannot be done."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.turns.append(list(numbers))
        if numbers[0] == 0:
            self.begun.set()
            assert self.let_go.wait(10)
        if -1 in numbers:
            raise ValueError("minus one")
        return [2 * number for number in numbers]


def behind_a_held_turn(together: Together, work: Work, threads: ThreadPoolExecutor, *numbers: int) -> list[Future[Any]]:
    """The results of calls that all came while the first one, of 0, was being done."""
    first = threads.submit(together.do, "a", 0, work)
    assert work.begun.wait(10)
    rest = []
    for number in numbers:  # one after the other, so that their order is known
        rest.append(threads.submit(together.do, "a", number, work))
        _until(lambda: sum(map(len, together._waiting.values())) == len(rest))
    work.let_go.set()
    return [first, *rest]


def _until(condition: Any) -> None:
    pause = threading.Event()
    for _ in range(10_000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it did not come true")


def test_a_call_alone_is_done_at_once() -> None:
    together, work = Together(), Work()
    assert [together.do("a", number, work) for number in (3, 4)] == [6, 8]
    assert work.turns == [[3], [4]]


def test_calls_that_come_meanwhile_are_done_as_one() -> None:
    together, work = Together(), Work()
    with ThreadPoolExecutor(8) as threads:
        found = [each.result(10) for each in behind_a_held_turn(together, work, threads, 1, 2, 3)]
    assert found == [0, 2, 4, 6]
    assert work.turns == [[0], [1, 2, 3]]
    assert together.do("a", 7, work) == 14, "nobody is left in charge"


def test_a_turn_has_its_bound() -> None:
    together, work = Together(most=2), Work()
    with ThreadPoolExecutor(8) as threads:
        found = [each.result(10) for each in behind_a_held_turn(together, work, threads, 1, 2, 3, 4, 5)]
    assert found == [0, 2, 4, 6, 8, 10]
    assert work.turns == [[0], [1, 2], [3, 4], [5]]


def test_another_key_waits_for_nobody() -> None:
    together, work = Together(), Work()
    with ThreadPoolExecutor(8) as threads:
        held = threads.submit(together.do, "a", 0, work)
        assert work.begun.wait(10)
        assert threads.submit(together.do, "b", 5, work).result(10) == 10
        work.let_go.set()
        assert held.result(10) == 0


def test_what_fails_fails_for_its_company_and_for_nobody_after() -> None:
    together, work = Together(), Work()
    with ThreadPoolExecutor(8) as threads:
        first, *company = behind_a_held_turn(together, work, threads, 1, -1, 2)
        assert first.result(10) == 0
        for each in company:
            with pytest.raises(ValueError, match="minus one"):
                each.result(10)
    assert together.do("a", 4, work) == 8
