from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import RFC_4122

from db.ids import lower_bound, uuid7


def test_an_id_says_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    after = time.time_ns() // 1_000_000
    assert (made.version, made.variant) == (7, RFC_4122)
    assert before <= made.int >> 80 <= after


def test_ids_of_one_millisecond_are_in_the_order_of_their_making() -> None:
    made = [uuid7() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_an_id_lies_between_the_bounds_of_its_time() -> None:
    made = uuid7()
    moment = datetime.fromtimestamp((made.int >> 80) / 1000, UTC)
    assert lower_bound(moment) <= made
