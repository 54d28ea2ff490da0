"""The queue of audits: each slot of a schedule once, whatever beat went through; each run by one worker at a time."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from audited import Audited, at_once, register
from sqlalchemy import Engine

from db import audits
from db.audits import Policy, Request
from db.engine import transaction
from db.tables import audit_run, model_alias
from errors import Unavailable
from monitoring import audit

DOCUMENT = {"status": "ok", "rows": 7, "columns": []}


@pytest.fixture
def deployed(engine: Engine) -> Audited:
    """In production for longer than beat looks back."""
    return register(engine, deployed=100)


def ask(engine: Engine, catch_up: int = 48) -> int:
    with transaction(engine) as connection:
        return audits.request_due(connection, catch_up_hours=catch_up)


def claim(engine: Engine) -> Any:
    with transaction(engine) as connection:
        return audits.claim(connection)


def complete(engine: Engine, run: Any, **more: object) -> bool:
    with transaction(engine) as connection:
        return audits.complete(connection, run, document=DOCUMENT | more, results=[])


def runs(engine: Engine, kind: str | None = None) -> list[Any]:
    with transaction(engine) as connection:
        query = sa.select(audit_run).order_by(audit_run.c.window_end, audit_run.c.kind)
        return list(connection.execute(query if kind is None else query.where(audit_run.c.kind == kind)))


def run_of(engine: Engine, run_id: object) -> Any:
    return next(run for run in runs(engine) if run.id == run_id)


def change(engine: Engine, **values: object) -> None:
    with transaction(engine) as connection:
        connection.execute(sa.update(audit_run).values(**values))


def expire_leases(engine: Engine) -> None:
    change(engine, lease_until=sa.text("now() - interval '1 second'"))


def wanted(version: Audited, *, alerting: bool = False, end: datetime | None = None) -> Request:
    end = end or datetime(2026, 1, 2, tzinfo=UTC)
    configuration = Policy().configuration
    return Request(
        "drift", version.model_id, version.version_id, end - timedelta(hours=24), end, configuration, alerting
    )


def person_asks(engine: Engine, request: Request) -> Any:
    with transaction(engine) as connection:
        return audits.request(connection, request)


def set_policy(version: Audited, **values: Any) -> None:
    with transaction(version.engine) as connection:
        audits.set_policy(connection, version.model_id, Policy(**values))


# ---- schedules


@pytest.mark.parametrize("hours", [1, 5])
def test_what_an_outage_of_beat_left_out_is_asked_for_once(engine: Engine, deployed: Audited, hours: int) -> None:
    ask(engine)
    before = runs(engine)
    missed = [run for run in before if run.window_end > before[-1].window_end - timedelta(hours=hours)]
    with transaction(engine) as connection:
        connection.execute(sa.delete(audit_run).where(audit_run.c.id.in_([run.id for run in missed])))
    assert ask(engine) == len(missed)
    assert [(run.kind, run.window_end) for run in runs(engine)] == [(run.kind, run.window_end) for run in before]
    assert Counter(run.kind for run in missed)["drift"] == hours
    assert ask(engine) == 0


def test_slots_follow_each_other_with_windows_that_end_there(engine: Engine, deployed: Audited) -> None:
    set_policy(deployed, window_hours=36)
    ask(engine, catch_up=48)
    for kind in ("drift", "accuracy"):
        found = runs(engine, kind)
        assert len(found) == 48
        assert all(run.window_end - run.window_start == timedelta(hours=36) for run in found)
        steps = {b.window_end - a.window_end for a, b in itertools.pairwise(found)}
        assert steps == {timedelta(hours=1)}
        assert all(run.alerting for run in found)


def test_two_beats_ask_for_each_slot_once(engine: Engine, deployed: Audited) -> None:
    register(engine, name="other", deployed=100)
    asked = at_once(*[lambda: ask(engine)] * 4)
    found = runs(engine)
    assert sorted(asked) == [0, 0, 0, len(found)]
    assert len({(run.version_id, run.kind, run.window_end) for run in found}) == len(found)


def test_two_beats_and_a_policy_that_changes_between_them(engine: Engine, deployed: Audited) -> None:
    """The configuration is part of a run's key, and yet a slot is asked for by one policy only."""
    at_once(lambda: ask(engine), lambda: set_policy(deployed, tolerance=0.2), lambda: ask(engine))
    assert max(Counter((run.kind, run.window_end) for run in runs(engine)).values()) == 1


@pytest.mark.parametrize("every", [5, 6, 24])
def test_an_interval_of_hours_divides_the_clock(engine: Engine, deployed: Audited, every: int) -> None:
    set_policy(deployed, every_hours=every)
    ask(engine)
    ends = [int(run.window_end.timestamp()) // 3600 for run in runs(engine, "drift")]
    assert len(ends) in {48 // every, 48 // every + 1}
    assert all(end % every == 0 for end in ends)


@pytest.mark.parametrize("every", [1, 5, 6, 24])
def test_the_domain_audit_has_the_first_slot_of_each_day(engine: Engine, deployed: Audited, every: int) -> None:
    set_policy(deployed, every_hours=every)
    ask(engine, catch_up=96)
    slots = [run.window_end for run in runs(engine, "drift")]
    whole_days = {slot.date() for slot in slots if slot - timedelta(hours=slot.hour) > slots[0]}
    first = {min(slot for slot in slots if slot.date() == day) for day in whole_days}
    found = {run.window_end for run in runs(engine, "domain")}
    assert len(whole_days) >= 3
    assert {slot for slot in found if slot.date() in whole_days} == first


def test_a_model_that_was_deployed_now_has_no_past(engine: Engine) -> None:
    version = register(engine)
    with transaction(engine) as connection:
        connection.execute(sa.update(model_alias).values(changed_at=sa.func.now()))
    assert ask(engine) == 0
    with transaction(engine) as connection:
        connection.execute(sa.update(model_alias).values(changed_at=sa.text("now() - interval '3 hours'")))
    ask(engine)
    assert len(runs(engine, "drift")) == 3
    assert {run.version_id for run in runs(engine)} == {version.version_id}


def test_a_model_that_is_not_deployed_is_not_audited(engine: Engine) -> None:
    register(engine, deployed=None)
    assert ask(engine) == 0


def test_a_disabled_policy_asks_for_nothing_not_even_later(engine: Engine, deployed: Audited) -> None:
    set_policy(deployed, enabled=False)
    assert ask(engine) == 0
    set_policy(deployed, enabled=True)
    assert ask(engine) == 0, "what went by while it was disabled"
    with transaction(engine) as connection:
        connection.execute(sa.text("UPDATE audit_policy SET enabled_since = enabled_since - interval '2 hours'"))
    ask(engine)
    assert len(runs(engine, "drift")) == 2


@pytest.mark.parametrize(
    "values", [{"tolerance": 0.1}, {"window_hours": 48}, {"horizon_days": 3, "negative_label": "0"}]
)
def test_another_policy_does_not_audit_the_past_again(engine: Engine, deployed: Audited, values: Any) -> None:
    ask(engine)
    set_policy(deployed, **values)
    assert ask(engine) == 0


def test_a_shorter_interval_holds_from_the_last_slot_on(engine: Engine, deployed: Audited) -> None:
    set_policy(deployed, every_hours=6)
    ask(engine)
    last = runs(engine, "drift")[-1].window_end
    set_policy(deployed, every_hours=1)
    ask(engine)
    assert all(run.window_end > last for run in runs(engine, "drift")[8:])
    assert len(runs(engine, "drift")) <= 8 + 6


# ---- claims


def test_two_workers_never_get_the_same_audit(engine: Engine, deployed: Audited) -> None:
    ask(engine)
    change(engine, state="done")
    change(engine, state="queued")
    total, got = len(runs(engine)), []
    lock = threading.Lock()

    def drain() -> None:
        while (run := claim(engine)) is not None:
            with lock:
                got.append(run.id)

    at_once(*[drain] * 4)
    assert len(got) == len(set(got)) == total


def test_an_audit_of_a_dead_worker_is_taken_over_and_the_dead_ones_word_is_refused(
    engine: Engine, deployed: Audited
) -> None:
    person_asks(engine, wanted(deployed))
    late = claim(engine)
    assert claim(engine) is None, "its lease is not over"
    expire_leases(engine)
    current = claim(engine)
    assert current.id == late.id
    assert not complete(engine, late, rows=1)
    with transaction(engine) as connection:
        assert not audits.fail(connection, late, "it did not go well here")
    assert complete(engine, current, rows=2)
    with transaction(engine) as connection:
        assert not audits.fail(connection, late, "nor afterwards")
    (run,) = runs(engine)
    assert (run.state, run.rows, run.error) == ("done", 2, None)


def test_after_three_deaths_an_audit_fails_and_the_next_one_is_claimed(engine: Engine, deployed: Audited) -> None:
    killer = person_asks(engine, wanted(deployed))
    for _ in range(3):
        assert claim(engine).id == killer
        expire_leases(engine)
    next_one = person_asks(engine, wanted(deployed, end=datetime(2026, 1, 3, tzinfo=UTC)))
    assert claim(engine).id == next_one
    run = run_of(engine, killer)
    assert (run.state, run.error) == ("failed", "the audit ended its worker 3 times")


def test_a_person_has_a_window_audited_anew(engine: Engine, deployed: Audited) -> None:
    first = person_asks(engine, wanted(deployed))
    assert complete(engine, claim(engine), rows=1)
    assert claim(engine) is None
    assert person_asks(engine, wanted(deployed)) == first
    assert complete(engine, claim(engine), rows=2)
    assert [(run.state, run.rows) for run in runs(engine)] == [("done", 2)]


def test_asked_for_anew_while_it_runs_the_later_run_counts(engine: Engine, deployed: Audited) -> None:
    person_asks(engine, wanted(deployed))
    before = claim(engine)
    person_asks(engine, wanted(deployed))
    after = claim(engine)
    assert after.attempts == before.attempts
    assert not complete(engine, before, rows=1)
    assert complete(engine, after, rows=2)


def test_a_person_that_looks_at_a_scheduled_window_does_not_silence_it(engine: Engine, deployed: Audited) -> None:
    ask(engine)
    scheduled = runs(engine, "drift")[-1]
    look = wanted(deployed, end=scheduled.window_end)
    assert person_asks(engine, look) == scheduled.id
    assert run_of(engine, scheduled.id).alerting


def test_a_window_that_a_person_looked_at_is_still_audited_by_the_schedule(engine: Engine, deployed: Audited) -> None:
    with transaction(engine) as connection:
        end = connection.execute(sa.select(sa.func.date_trunc("hour", sa.func.now()))).scalar_one()
    looked = person_asks(engine, wanted(deployed, end=end))
    complete(engine, claim(engine))
    ask(engine)
    run = run_of(engine, looked)
    assert (run.alerting, run.state) == (True, "queued")
    assert len(runs(engine, "drift")) == 48


# ---- runs


def run_one(engine: Engine, tmp_path: Path) -> str | None:
    return audit.run_one(engine, None, tmp_path)  # type: ignore[arg-type]  # only the domain audit reads artefacts


def test_a_version_without_a_reference_profile_says_so(engine: Engine, tmp_path: Path) -> None:
    person_asks(engine, wanted(register(engine, reference=False)))
    assert "failed" in (run_one(engine, tmp_path) or "")
    (run,) = runs(engine)
    assert run.state == "failed"
    assert "register the version again" in run.error
    assert run_one(engine, tmp_path) is None


def test_an_error_that_nobody_foresaw_is_the_audits(
    engine: Engine, deployed: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "drift", lambda *_: 1 / 0)
    person_asks(engine, wanted(deployed))
    run_one(engine, tmp_path)
    (run,) = runs(engine)
    assert (run.state, run.error) == ("failed", "ZeroDivisionError; the worker's log says more")


def test_an_audit_whose_database_was_away_is_run_again(
    engine: Engine, deployed: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.score(600, as_of=datetime(2026, 1, 1, 12, tzinfo=UTC))
    person_asks(engine, wanted(deployed))

    def away(*_: object) -> int:
        raise Unavailable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "roll_up", away)
        with pytest.raises(Unavailable):
            run_one(engine, tmp_path)
    expire_leases(engine)
    run_one(engine, tmp_path)
    (run,) = runs(engine)
    assert (run.state, run.status, run.rows) == ("done", "ok", 600)


def test_a_window_that_begins_within_an_hour_has_all_of_it(engine: Engine, deployed: Audited, tmp_path: Path) -> None:
    """An hour that is rolled up is not divided again, and the document says what was looked at."""
    now = datetime.now(UTC).replace(microsecond=0)
    hour = now.replace(minute=0, second=0)
    deployed.score(600, as_of=hour - timedelta(hours=3))
    end = hour - timedelta(hours=2, minutes=30)
    person_asks(engine, wanted(deployed, end=end))
    run_one(engine, tmp_path)
    (run,) = runs(engine)
    assert run.document["rows"] == 600
    assert run.document["window"]["end"] == (hour - timedelta(hours=2)).isoformat().replace("+00:00", "Z")


def test_the_latest_of_production_is_one_per_version(engine: Engine, deployed: Audited) -> None:
    register(engine, name="idle", deployed=None)
    for day in (2, 4, 3):
        person_asks(engine, wanted(deployed, end=datetime(2026, 1, day, tzinfo=UTC)))
        complete(engine, claim(engine), rows=day)
    person_asks(engine, wanted(deployed, end=datetime(2026, 1, 5, tzinfo=UTC)))  # waits
    with transaction(engine) as connection:
        found = audits.latest_of_production(connection, "drift")
        assert [(row.model, row.model_version, row.rows) for row in found] == [("m", "1.0.0", 4)]
        assert audits.latest_of_production(connection, "accuracy") == []
