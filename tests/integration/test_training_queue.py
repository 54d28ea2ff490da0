"""The queue of trainings: each trigger runs once, by one worker at a time, and a dead worker's run goes on elsewhere."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from audited import Audited, at_once, register
from sqlalchemy import Engine

from db import trainings
from db.engine import transaction
from db.tables import training_policy, training_run
from errors import Fenced
from monitoring.alerting import observe
from monitoring.alerts import Observation
from training.lease import Lease


@pytest.fixture
def model(engine: Engine) -> Audited:
    return register(engine)


def ask(model: Audited, key: str = "now", kind: Any = "hand") -> UUID:
    with transaction(model.engine) as connection:
        return trainings.request(connection, model.model_id, kind, key, by="tests")


def ask_due(engine: Engine) -> int:
    with transaction(engine) as connection:
        return trainings.request_due(connection)


def claim(engine: Engine) -> Any:
    with transaction(engine) as connection:
        return trainings.claim(connection)


def end(engine: Engine, run: Any, state: Any = "succeeded") -> bool:
    with transaction(engine) as connection:
        return trainings.end(connection, run, state, document={"decision": {}})


def runs(engine: Engine) -> list[Any]:
    with transaction(engine) as connection:
        return list(connection.execute(sa.select(training_run).order_by(training_run.c.id)))


def set_policy(model: Audited, *, days_ago: int = 0, **values: Any) -> None:
    with transaction(model.engine) as connection:
        trainings.set_policy(connection, model.model_id, trainings.Policy(**values))
        if days_ago:
            connection.execute(
                sa.update(training_policy).values(scheduled_since=sa.func.now() - timedelta(days=days_ago))
            )


def expire_leases(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(sa.update(training_run).values(lease_until=sa.text("now() - interval '1 second'")))


# ---- triggers


def test_the_same_trigger_at_once_is_one_run(engine: Engine, model: Audited) -> None:
    found = at_once(*[lambda: ask(model)] * 6)
    assert len(set(found)) == len(runs(engine)) == 1
    other = register(engine, name="other")
    assert len({ask(model), ask(model, "later"), ask(model, "now", "alert"), ask(other)}) == 4
    assert len(runs(engine)) == 4


def test_a_trigger_that_has_ended_does_not_run_again(engine: Engine, model: Audited) -> None:
    run_id = ask(model)
    assert end(engine, claim(engine))
    assert ask(model) == run_id
    assert claim(engine) is None


def test_two_beats_ask_for_each_day_of_a_schedule_once(engine: Engine, model: Audited) -> None:
    set_policy(model, every_days=1, days_ago=10)
    assert sorted(at_once(*[lambda: ask_due(engine)] * 4)) == [0, 0, 0, 1]
    (run,) = runs(engine)
    assert (run.trigger_kind, run.by) == ("schedule", "schedule")
    with transaction(engine) as connection:
        today = connection.execute(sa.text("SELECT to_char(timezone('UTC', now()), 'YYYY-MM-DD')")).scalar_one()
    assert run.trigger_key == today


@pytest.mark.parametrize("every", [1, 7, 30])
def test_a_slot_is_a_day_that_the_interval_divides(engine: Engine, model: Audited, every: int) -> None:
    set_policy(model, every_days=every, days_ago=31)
    assert ask_due(engine) == 1
    with transaction(engine) as connection:
        number, age = connection.execute(
            sa.text(
                "SELECT CAST(trigger_key AS date) - DATE '1970-01-01', "
                "CAST(timezone('UTC', now()) AS date) - CAST(trigger_key AS date) FROM training_run"
            )
        ).one()
    assert number % every == 0
    assert 0 <= age < every


def test_a_schedule_begins_after_it_was_set(engine: Engine, model: Audited) -> None:
    set_policy(model, every_days=30)
    assert ask_due(engine) == 0
    set_policy(model, every_days=30, days_ago=31)
    set_policy(model, every_days=30, promotion="auto-if-better")
    assert ask_due(engine) == 1, "the schedule stayed the same and goes on"
    set_policy(model, every_days=None)
    assert ask_due(engine) == 0


def test_a_model_that_is_not_deployed_is_not_retrained_by_schedule(engine: Engine) -> None:
    set_policy(register(engine, deployed=None), every_days=1, days_ago=5)
    assert ask_due(engine) == 0


def fired(model: Audited, *columns: str, run_id: Any = None) -> None:
    """An audit in which a column is all null: critical at once."""
    with transaction(model.engine) as connection:
        now = connection.execute(sa.select(sa.func.now())).scalar_one()

        class Run:
            id, model_id, version_id = run_id, model.model_id, model.version_id

        observations = [
            Observation(
                status="critical", value=0.9, warn=0.01, critical=0.05, check="null_rate_difference",
                window_start=now, column=column,
            )
            for column in columns
        ]  # fmt: skip
        observe(connection, Run, observations)


def test_an_alert_that_fires_asks_for_a_training_if_the_policy_wants_it(engine: Engine, model: Audited) -> None:
    fired(model, "a")
    assert runs(engine) == []
    set_policy(model, on_alert=True)
    fired(model, "b", "c", "d")
    (run,) = runs(engine)
    assert (run.trigger_kind, run.by) == ("alert", "alert")
    with transaction(engine) as connection:
        event = connection.execute(
            sa.text("SELECT to_state FROM alert_event WHERE id = :id"), {"id": int(run.trigger_key)}
        )
        assert event.scalar_one() == "firing"
    fired(model, "e")
    assert len(runs(engine)) == 1, "one is open already"
    assert end(engine, claim(engine))
    fired(model, "f")
    fired(model, "b")
    assert len(runs(engine)) == 2, "what fires already is no news"


# ---- claims


def test_two_workers_never_get_the_same_run(engine: Engine, model: Audited) -> None:
    for number in range(20):
        ask(model, str(number))
    got: list[UUID] = []
    lock = threading.Lock()

    def drain() -> None:
        while (run := claim(engine)) is not None:
            with lock:
                got.append(run.id)

    at_once(*[drain] * 4)
    assert len(got) == len(set(got)) == 20


def test_a_dead_workers_run_is_taken_over_and_its_late_word_is_refused(engine: Engine, model: Audited) -> None:
    ask(model)
    late = claim(engine)
    assert claim(engine) is None, "its lease is not over"
    expire_leases(engine)
    current = claim(engine)
    assert current.id == late.id
    with transaction(engine) as connection:
        assert not trainings.renew(connection, late)
        assert not trainings.note(connection, late, document={"late": True})
    assert not end(engine, late, "failed")
    assert end(engine, current)
    (run,) = runs(engine)
    assert (run.state, run.attempts) == ("succeeded", 2)


def test_after_three_deaths_a_run_fails_and_the_next_one_is_claimed(engine: Engine, model: Audited) -> None:
    killer, other = ask(model, "killer"), ask(model, "other")
    for _ in range(3):
        assert claim(engine).id == killer
        expire_leases(engine)
    assert claim(engine).id == other
    run = next(run for run in runs(engine) if run.id == killer)
    assert (run.state, run.error) == ("failed", "the training ended its worker 3 times")


def test_a_long_fit_keeps_its_lease_and_learns_that_it_was_lost(engine: Engine, model: Audited) -> None:
    ask(model)
    run = claim(engine)
    with Lease(engine, run, seconds=0.05) as lease:
        expire_leases(engine)
        renewed = threading.Event()
        for _ in range(200):
            if runs(engine)[0].lease_until > run.lease_until:
                renewed.set()
                break
            lease._over.wait(0.02)
        assert renewed.is_set()
        lease.check()
        expire_leases(engine)
        with transaction(engine) as connection:  # another worker is quicker than the next renewal
            connection.execute(sa.update(training_run).values(attempts=2))
        assert lease._lost.wait(10)
        with pytest.raises(Fenced, match="taken over"):
            lease.check()
