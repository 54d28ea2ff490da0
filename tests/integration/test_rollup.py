"""The roll-up: what finishes have counted and what is rolled up sum to the same, whoever looks, whenever, whatever fails."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from audited import Audited, at_once, register
from sqlalchemy import Engine

from db import chunks, jobs
from db.engine import transaction
from db.tables import chunk, chunk_profile, job, profile_window, scoring_total
from monitoring import rollup

NOW = datetime.now(UTC)
ALWAYS = (NOW - timedelta(days=400), NOW + timedelta(days=2))


def today() -> datetime:
    """When the tests run, which may be the day after that on which they were collected."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def version(engine: Engine) -> Audited:
    return register(engine)


def count(engine: Engine, table: sa.Table) -> int:
    with transaction(engine) as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def windows(engine: Engine) -> list[tuple[datetime, int]]:
    with transaction(engine) as connection:
        query = sa.select(profile_window.c.start, profile_window.c.rows).order_by(profile_window.c.start)
        return [(row.start, row.rows) for row in connection.execute(query)]


def seen(version: Audited) -> dict[str, Any]:
    return version.total() | {"profiled": version.rows_between(*ALWAYS)}


def test_a_roll_up_changes_no_sum(engine: Engine, version: Audited) -> None:
    version.score(30, 20)
    version.score(7, endpoint="predict", as_of=today() - timedelta(days=40, hours=3))
    version.receive(10)
    version.finish_one(errored=4)
    before = seen(version)
    assert before == {"jobs": 56, "predict": 7, "timed": 4, "type_error": 4, "profiled": 63}
    assert rollup.roll_up(engine) == 4
    assert (count(engine, chunk_profile), count(engine, scoring_total)) == (0, 2)
    assert seen(version) == before
    version.score(5)
    assert seen(version) == before | {"jobs": 61, "timed": 5, "profiled": 68}
    assert rollup.roll_up(engine) == 1
    assert rollup.roll_up(engine) == 0


def test_nobody_sees_a_roll_up_half_done(engine: Engine, version: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small batches, and readers all the time."""
    monkeypatch.setattr(rollup, "_BATCH", 3)
    version.score(*[2] * 60)
    expected = seen(version)
    done = threading.Event()

    def roll() -> int:
        try:
            return rollup.roll_up(engine)
        finally:
            done.set()

    def read() -> int:
        looks = 0
        while not done.is_set():
            assert seen(version) == expected
            looks += 1
        return looks

    rolled, *looks = at_once(roll, read, read)
    assert rolled == 60
    assert min(looks) > 2
    assert seen(version) == expected


def test_two_roll_ups_at_once_count_nothing_twice(
    engine: Engine, version: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "_BATCH", 3)
    version.score(*[2] * 40)
    expected = seen(version)

    def work() -> int:
        return rollup.roll_up(engine)

    assert sum(at_once(work, work, work)) + rollup.roll_up(engine) == 40
    assert seen(version) == expected
    assert count(engine, chunk_profile) == 0


def test_a_roll_up_that_dies_has_done_nothing(
    engine: Engine, version: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    version.score(30, 20)
    before = seen(version)
    with monkeypatch.context() as patch:
        patch.setattr(rollup, "_mark_dirty", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rollup.roll_up(engine)
    assert (count(engine, chunk_profile), count(engine, profile_window), count(engine, scoring_total)) == (2, 0, 0)
    assert seen(version) == before
    assert rollup.roll_up(engine) == 2
    assert seen(version) == before


def test_an_upload_counts_from_when_it_is_complete(engine: Engine, version: Audited) -> None:
    job_id = version.receive(30, 20, seal=False)
    while version.finish_one():
        pass
    assert seen(version) == {"profiled": 0}
    assert rollup.roll_up(engine) == 0
    with transaction(engine) as connection:
        version.seal(connection, job_id, 30, 20)
    assert seen(version) == {"jobs": 50, "timed": 2, "profiled": 50}
    assert rollup.roll_up(engine) == 2


def test_a_discarded_upload_leaves_nothing(engine: Engine, version: Audited) -> None:
    job_id = version.receive(30, 20, seal=False)
    version.finish_one()
    with transaction(engine) as connection:
        jobs.discard(connection, job_id)
    assert not version.finish_one()
    assert rollup.roll_up(engine) == 0
    assert seen(version) == {"profiled": 0}
    assert count(engine, chunk_profile) == 0


def test_what_was_scored_counts_though_its_job_is_gone(engine: Engine, version: Audited) -> None:
    """Retention may come before a roll-up that was late; a counter that goes down looks like a restart."""
    job_id = version.score(30)
    before = seen(version)
    with transaction(engine) as connection:
        connection.execute(sa.delete(job).where(job.c.id == job_id))
    assert seen(version) == before
    rollup.roll_up(engine)
    assert seen(version) == before


def test_hours_become_days_after_eight_days_and_sums_stay(engine: Engine, version: Audited) -> None:
    old, young = today() - timedelta(days=9), today() - timedelta(days=8)
    for hour, rows in ((3, 10), (3, 5), (17, 20)):
        version.score(rows, as_of=old + timedelta(hours=hour))
        version.score(rows, as_of=young + timedelta(hours=hour))
    rollup.roll_up(engine)
    before = seen(version)
    at_three = [(young + timedelta(hours=3), 15), (young + timedelta(hours=17), 20)]
    within = (old + timedelta(hours=10), old + timedelta(hours=20))  # an audit of hours that are hours no longer
    assert version.rows_between(*within) == 35
    assert rollup.make_days(engine) == 1
    assert windows(engine) == [(old, 35), *at_three]
    assert version.rows_between(*within) == 35
    assert version.rows_between(young + timedelta(hours=10), young + timedelta(hours=20)) == 20
    assert rollup.make_days(engine) == 0
    version.score(1, as_of=old + timedelta(hours=5))
    rollup.roll_up(engine)
    assert rollup.make_days(engine) == 1
    assert windows(engine) == [(old, 36), *at_three]
    assert seen(version) == before | {"jobs": before["jobs"] + 1, "timed": 7, "profiled": before["profiled"] + 1}


def test_rows_stand_in_the_hour_that_they_are_of(engine: Engine, version: Audited) -> None:
    hour = today() - timedelta(hours=5)
    for minutes in (0, 59, 60):
        version.score(10, as_of=hour + timedelta(minutes=minutes))
    for _ in range(2):  # not rolled up, and rolled up
        assert version.rows_between(hour, hour + timedelta(hours=1)) == 20
        assert version.rows_between(hour + timedelta(minutes=30), hour + timedelta(minutes=40)) == 20
        assert version.rows_between(hour + timedelta(hours=1), hour + timedelta(hours=2)) == 10
        rollup.roll_up(engine)


def test_a_version_without_a_reference_profile_is_counted_all_the_same(engine: Engine) -> None:
    version = register(engine, reference=False)
    version.receive(10)
    version.finish_one(profiled=False)
    assert version.total() == {"jobs": 10, "timed": 1}
    assert rollup.roll_up(engine) == 1
    assert version.total() == {"jobs": 10, "timed": 1}
    assert windows(engine) == []


class Random:
    """Everything that moves the counters, in any order, beside what they must say."""

    def __init__(self, version: Audited, seed: int) -> None:
        self.version, self.engine = version, version.engine
        self.random = random.Random(seed)
        self.open: list[Any] = []  # uploads: (job, rows)

    def step(self) -> None:
        self.random.choice(
            [
                self.submit,
                self.finish,
                self.finish,
                self.finish,
                self.finish,
                self.upload,
                self.seal,
                self.discard,
                self.roll_up,
                self.die,
                self.retain,
            ]
        )()

    def submit(self) -> None:
        old = self.random.choice(
            [None, today() - timedelta(days=self.random.randint(7, 10), hours=self.random.randint(0, 23))]
        )
        self.version.receive(*self.sizes(), as_of=old, endpoint=self.random.choice(["jobs", "predict"]))

    def upload(self) -> None:
        sizes = self.sizes()
        self.open.append((self.version.receive(*sizes, seal=False), sizes))

    def seal(self) -> None:
        if self.open:
            job_id, sizes = self.open.pop()
            with transaction(self.engine) as connection:
                self.version.seal(connection, job_id, *sizes)

    def discard(self) -> None:
        if self.open:
            with transaction(self.engine) as connection:
                jobs.discard(connection, self.open.pop(0)[0])

    def finish(self) -> None:
        self.version.finish_one(errored=self.random.choice([0, 0, 1]))

    def die(self) -> None:
        """A row that kills its worker becomes a row error, which is counted too."""
        if chunks.claim(self.engine, lane="bulk", count=1, owner="dead", lease_seconds=60):
            with transaction(self.engine) as connection:
                connection.execute(sa.update(chunk).values(lease_until=sa.text("now() - interval '1 second'")))
            chunks.rescue(self.engine, poison_attempts=1)

    def retain(self) -> None:
        with transaction(self.engine) as connection:
            connection.execute(sa.delete(job).where(job.c.state.in_(jobs.TERMINAL)))

    def roll_up(self) -> None:
        rollup.roll_up(self.engine)
        rollup.make_days(self.engine)

    def sizes(self) -> list[int]:
        return [self.random.choice([1, 3]) for _ in range(self.random.randint(1, 3))]


@pytest.mark.parametrize("seed", range(3))
def test_counters_never_go_down(engine: Engine, version: Audited, seed: int) -> None:
    world = Random(version, seed)
    before: dict[str, Any] = {}
    for _ in range(150):
        world.step()
        after = seen(version)
        assert {name: value for name, value in before.items() if value > after.get(name, 0)} == {}
        before = after
    assert min(before[name] for name in ("jobs", "predict", "worker_crash", "type_error")) > 0
