"""The chunk protocol on a real Postgres: fairness, fencing, the counter, and rescue."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
import sqlalchemy as sa
from predicted_rows import predicted
from sqlalchemy import Engine

from db import chunks, jobs, predictions
from db.chunks import Claim, Outcome
from db.engine import transaction
from db.predictions import Range
from db.tables import chunk, job, prediction, row_error
from errors import Conflict, Fenced, NotFound
from records.payload import unpack
from records.row_error import RowError

MakeJob = Callable[..., UUID]


def claim(engine: Engine, *, lane: str = "bulk", owner: str = "a", lease: float = 30, **more: object) -> list[Claim]:
    count = more.pop("count", 1)
    return chunks.claim(engine, lane=lane, count=count, owner=owner, lease_seconds=lease, **more)  # type: ignore[arg-type]


def finish(engine: Engine, item: Claim, errors: list[RowError] | None = None) -> None:
    errors = errors or []
    bad = {error.row for error in errors}
    rows = [row for row in range(item.first_row, item.first_row + item.rows) if row not in bad]
    chunks.finish(engine, [Outcome(item, len(rows), errors)], predicted(item.job_id, rows))


def state(engine: Engine, job_id: UUID) -> sa.Row:
    with transaction(engine) as connection:
        return connection.execute(sa.select(job).where(job.c.id == job_id)).one()


def stored(engine: Engine, job_id: UUID) -> tuple[int, int]:
    """(predictions, row errors) that the tables hold."""
    with transaction(engine) as connection:
        return tuple(  # type: ignore[return-value]
            connection.execute(
                sa.select(sa.func.count()).select_from(table).where(table.c.job_id == job_id)
            ).scalar_one()
            for table in (prediction, row_error)
        )


def expire_leases(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(sa.update(chunk).values(lease_until=sa.text("now() - interval '1 second'")))


def test_a_job_runs_to_its_end(engine: Engine, make_job: MakeJob) -> None:
    job_id = make_job(3, 2)
    finish(engine, claim(engine)[0])
    assert state(engine, job_id).state == "running"
    finish(engine, claim(engine)[0])
    row = state(engine, job_id)
    assert (row.state, row.rows_total, row.rows_succeeded, row.chunks_left) == ("succeeded", 5, 5, 0)
    assert stored(engine, job_id) == (5, 0)
    assert claim(engine) == []


def test_claims_take_turns_between_jobs_and_respect_priority(engine: Engine, make_job: MakeJob) -> None:
    large = make_job(1, 1, 1)
    small = make_job(1)
    urgent = make_job(1, priority="high")
    order = [claim(engine)[0] for _ in range(5)]
    assert [(item.job_id, item.number) for item in order] == [
        (urgent, 0), (large, 0), (small, 0), (large, 1), (large, 2),
    ]  # fmt: skip


def test_the_jobs_of_one_tenant_do_not_keep_the_others_waiting(engine: Engine, make_job: MakeJob) -> None:
    for _ in range(200):
        make_job(1, tenant="many", priority="high")
    own = make_job(1, tenant="one")
    # A lot is drawn between two tenants at each claim: 64 times the wrong one is one run in 2 ** 64.
    assert own in {claim(engine)[0].job_id for _ in range(64)}


def test_a_claim_of_many_singles_is_shared_out(engine: Engine, make_job: MakeJob) -> None:
    for tenant in ("many", "some", "one"):
        for _ in range({"many": 40, "some": 40, "one": 2}[tenant]):
            make_job(1, lane="interactive", tenant=tenant)
    taken = Counter(item.tenant for item in claim(engine, lane="interactive", count=30))
    assert taken == {"many": 10, "some": 10, "one": 2}
    assert len(claim(engine, lane="interactive", count=100)) == 60


def test_a_suspect_keeps_its_turn_when_it_is_cut_in_two(engine: Engine, make_job: MakeJob) -> None:
    job_id = make_job(4, tenant="other")
    for suspects in (False, True):
        assert claim(engine, owner="dead", suspects=suspects)
        chunks.rescue(engine, poison_attempts=3, dead_owners=["dead"])
    assert [claim(engine, suspects=True)[0].job_id for _ in range(2)] == [job_id, job_id]
    assert claim(engine, suspects=True) == []


def test_a_lane_never_gives_the_work_of_the_other(engine: Engine, make_job: MakeJob) -> None:
    make_job(1, lane="bulk")
    assert claim(engine, lane="interactive") == []


def test_two_workers_never_get_the_same_chunk(engine: Engine, make_job: MakeJob) -> None:
    make_job(*[1] * 40)
    got: list[tuple[UUID, int]] = []

    def drain(owner: str) -> None:
        while items := claim(engine, owner=owner, count=3):
            got.extend((item.job_id, item.number) for item in items)

    threads = [threading.Thread(target=drain, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(set(got)) == 40


def test_a_late_finish_is_fenced_and_leaves_nothing(engine: Engine, make_job: MakeJob) -> None:
    job_id = make_job(2)
    late = claim(engine, owner="paused")[0]
    expire_leases(engine)
    assert chunks.rescue(engine, poison_attempts=3) == 1
    current = claim(engine, owner="other", suspects=True)[0]
    with pytest.raises(Fenced):
        finish(engine, late)
    assert stored(engine, job_id) == (0, 0)
    finish(engine, current)
    with pytest.raises(Fenced):
        finish(engine, late)
    assert stored(engine, job_id) == (2, 0)
    assert state(engine, job_id).rows_succeeded == 2


def test_last_chunks_that_finish_together_end_the_job_once(engine: Engine, make_job: MakeJob) -> None:
    for _ in range(10):
        job_id = make_job(1, 1, 1, 1)
        items = claim(engine, count=4)
        barrier = threading.Barrier(4)

        def together(item: Claim, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            finish(engine, item)

        threads = [threading.Thread(target=together, args=(item,)) for item in items]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert state(engine, job_id).state == "succeeded"


def test_rows_that_error_are_counted_and_end_the_job_accordingly(engine: Engine, make_job: MakeJob) -> None:
    def error(row: int) -> RowError:
        return RowError(row, row + 1, None, "x", "wrong_type", "no number", "abc")

    some, every = make_job(3), make_job(1)
    finish(engine, claim(engine)[0], [error(2)])
    finish(engine, claim(engine)[0], [error(1)])
    assert state(engine, some).state == "completed_with_errors"
    assert state(engine, every).state == "failed"
    assert stored(engine, some) == (2, 1)
    with transaction(engine) as connection:
        assert predictions.error_rows(connection, some, Range(1, 4)) == [2]


def test_chunks_of_an_upload_are_scored_before_it_is_sealed(engine: Engine, make_job: MakeJob) -> None:
    job_id = make_job(2, 2, seal=False)
    finish(engine, claim(engine)[0])
    finish(engine, claim(engine)[0])
    with transaction(engine) as connection, pytest.raises(NotFound):
        jobs.get(connection, "default", job_id)
    with transaction(engine) as connection:
        assert jobs.seal(connection, job_id, rows=4, chunks=2, request_hash=None) == "succeeded"
    assert state(engine, job_id).finished_at is not None


def test_an_upload_that_breaks_off_leaves_nothing_even_of_what_was_scored(engine: Engine, make_job: MakeJob) -> None:
    job_id = make_job(2, 2, seal=False)
    finish(engine, claim(engine)[0])
    in_flight = claim(engine)[0]
    with transaction(engine) as connection:
        jobs.discard(connection, job_id)
    with pytest.raises(Fenced):
        finish(engine, in_flight)
    assert stored(engine, job_id) == (0, 0)


def test_canceling_keeps_what_is_done_and_fences_what_is_in_hand(engine: Engine, make_job: MakeJob) -> None:
    job_id = make_job(2, 2, 2)
    finish(engine, claim(engine)[0])
    in_hand = claim(engine)[0]
    with transaction(engine) as connection:
        jobs.cancel(connection, "default", job_id)
    with pytest.raises(Fenced):
        finish(engine, in_hand)
    row = state(engine, job_id)
    assert (row.state, row.rows_succeeded, row.rows_canceled, row.chunks_left) == ("canceled", 2, 4, 0)
    with transaction(engine) as connection:
        jobs.cancel(connection, "default", job_id)  # the second click
    assert claim(engine) == []


def test_a_finished_job_cannot_be_canceled(engine: Engine, make_job: MakeJob) -> None:
    job_id = make_job(1)
    finish(engine, claim(engine)[0])
    with transaction(engine) as connection, pytest.raises(Conflict, match="succeeded"):
        jobs.cancel(connection, "default", job_id)


def test_a_dead_owner_is_rescued_before_its_lease_is_over(engine: Engine, make_job: MakeJob) -> None:
    make_job(1, 1)
    claim(engine, owner="dead")
    claim(engine, owner="alive")
    assert chunks.rescue(engine, poison_attempts=3, dead_owners=["dead"]) == 1
    with transaction(engine) as connection:
        states = connection.execute(sa.select(chunk.c.state, chunk.c.crashes).order_by(chunk.c.number)).all()
    assert [tuple(row) for row in states] == [("queued", 1), ("running", 0)]


def test_suspects_are_claimed_apart_from_the_others(engine: Engine, make_job: MakeJob) -> None:
    make_job(1, 1, lane="interactive")
    claim(engine, lane="interactive", owner="dead")
    chunks.rescue(engine, poison_attempts=3, dead_owners=["dead"])
    assert [item.number for item in claim(engine, lane="interactive", count=10)] == [1]
    assert [item.number for item in claim(engine, lane="interactive", suspects=True)] == [0]


def test_a_row_that_kills_its_worker_is_cornered_and_its_neighbours_score(engine: Engine, make_job: MakeJob) -> None:
    job_id = make_job(64)
    poison = 37
    crashes = 0
    for _ in range(200):
        items = claim(engine, suspects=True) or claim(engine)
        if not items:
            break
        item = items[0]
        if item.first_row <= poison < item.first_row + item.rows:
            crashes += 1
            chunks.rescue(engine, poison_attempts=3, dead_owners=["a"])
        else:
            finish(engine, item)
    row = state(engine, job_id)
    assert (row.state, row.rows_succeeded, row.rows_errored) == ("completed_with_errors", 63, 1)
    with transaction(engine) as connection:
        error = connection.execute(sa.select(row_error).where(row_error.c.job_id == job_id)).one()
    assert (error.row, error.line, error.code, error.raw) == (poison, poison + 1, "worker_crash", str(poison))
    assert crashes <= 10  # 2 before the first cut, log2(64) to corner it, 2 more on the row itself
    with transaction(engine) as connection:
        spans = jobs.spans(connection, job_id)
    assert sum(span.rows for span in spans) == 64
    assert [span.first_row for span in spans] == sorted(span.first_row for span in spans)


def test_cutting_in_two_keeps_every_byte(engine: Engine, make_job: MakeJob) -> None:
    job_id = make_job(5)
    for _ in range(2):
        assert claim(engine, suspects=True) or claim(engine)
        chunks.rescue(engine, poison_attempts=3, dead_owners=["a"])
    with transaction(engine) as connection:
        rows = connection.execute(
            sa.select(chunk.c.first_row, chunk.c.rows, chunk.c.first_line, chunk.c.payload)
            .where(chunk.c.job_id == job_id)
            .order_by(chunk.c.first_row)
        ).all()
    assert len(rows) == 2
    assert b"".join(unpack(bytes(row.payload), 1000) for row in rows) == b"1\n2\n3\n4\n5\n"
    assert rows[1].first_row == 1 + rows[0].rows
    assert rows[1].first_line == 2 + rows[0].rows


def test_a_finish_whose_commit_was_lost_is_recognised(engine: Engine, make_job: MakeJob) -> None:
    job_id = make_job(2)
    item = claim(engine)[0]
    finish(engine, item)
    assert chunks._is_done(engine, [Outcome(item, 2, [])])
    assert stored(engine, job_id) == (2, 0)


def test_released_chunks_count_no_crash(engine: Engine, make_job: MakeJob) -> None:
    make_job(1)
    chunks.release(engine, claim(engine))
    assert claim(engine)[0].crashes == 0


def test_versions_that_a_worker_refuses_are_left_to_others(engine: Engine, make_job: MakeJob, version_id: int) -> None:
    make_job(1)
    assert claim(engine, refused=[version_id]) == []
    assert len(claim(engine)) == 1


def test_one_idempotency_key_makes_one_job(engine: Engine, make_job: MakeJob) -> None:
    first = make_job(1, idempotency_key="k", request_hash=b"h")
    with pytest.raises(AssertionError):
        make_job(1, idempotency_key="k", request_hash=b"h")
    with transaction(engine) as connection:
        earlier = jobs.by_idempotency_key(connection, "default", "k")
    assert earlier is not None
    assert (earlier.id, earlier.request_hash) == (first, b"h")


def test_counts_that_do_not_balance_cannot_be_stored(engine: Engine, make_job: MakeJob) -> None:
    job_id = make_job(2)
    with pytest.raises(sa.exc.IntegrityError, match="rows_balance"), transaction(engine) as connection:
        connection.execute(sa.update(job).where(job.c.id == job_id).values(rows_succeeded=3))
    with pytest.raises(sa.exc.IntegrityError, match="terminal_is_complete"), transaction(engine) as connection:
        connection.execute(sa.update(job).where(job.c.id == job_id).values(state="succeeded"))


def test_chunks_with_row_errors_that_finish_together_do_not_deadlock(engine: Engine, make_job: MakeJob) -> None:
    for _ in range(5):
        job_id = make_job(*[2] * 8)
        items = claim(engine, count=8)
        barrier = threading.Barrier(8)

        def together(item: Claim, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            finish(engine, item, [RowError(item.first_row, 2, None, "x", "wrong_type", "no number", "abc")])

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(together, item) for item in items]:
                done.result()
        row = state(engine, job_id)
        assert (row.state, row.rows_succeeded, row.rows_errored) == ("completed_with_errors", 8, 8)
    with engine.connect() as connection:
        name = connection.execute(sa.text("SELECT current_database()")).scalar_one()
        deadlocks = connection.execute(
            sa.text("SELECT deadlocks FROM pg_stat_database WHERE datname = :name"), {"name": name}
        ).scalar_one()
    assert deadlocks == 0


def test_an_attempt_that_failed_is_given_up_at_once(engine: Engine, make_job: MakeJob) -> None:
    make_job(1)
    chunks.give_up(engine, claim(engine, lease=3600))
    assert chunks.rescue(engine, poison_attempts=3) == 1
    assert claim(engine, suspects=True)[0].crashes == 1
