"""Alerts in the database: every audit is a step, every transition is kept once, and somebody is told of those that matter."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Barrier, Lock
from typing import Any

import pytest
import sqlalchemy as sa
from audited import Audited, at_once, register
from sqlalchemy import Engine

from db import alerts, audits
from db.audits import Request
from db.engine import transaction
from db.tables import alert, alert_event
from monitoring import alerting
from monitoring.alerts import AlertState, Observation, acknowledge
from monitoring.notifications import Delivery
from settings import Settings

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def version(engine: Engine) -> Audited:
    return register(engine)


def seen(window: int, status: str = "warn", column: str = "x", check: str = "ks") -> Observation:
    value = {"ok": 0.01, "warn": 0.15, "critical": 0.3}[status]
    return Observation(status, value, 0.1, 0.2, check, START + timedelta(hours=window), column)


def run_of(version: Audited, window: int) -> Any:
    """An audit that a worker has in hand."""
    start = START + timedelta(hours=window)
    with transaction(version.engine) as connection:
        wanted = Request(
            "drift", version.model_id, version.version_id, start, start + timedelta(hours=1), "", alerting=True
        )
        audits.request(connection, wanted)
        return audits.claim(connection)


def observe(version: Audited, run: Any, *observations: Observation) -> None:
    with transaction(version.engine) as connection:
        alerting.observe(connection, run, observations)


def audited(version: Audited, *windows: tuple[int, str]) -> None:
    for window, status in windows:
        observe(version, run_of(version, window), seen(window, status))


def states(engine: Engine) -> dict[tuple[str, str], str]:
    with transaction(engine) as connection:
        return {(row.column_name, row.check): row.state for row in connection.execute(sa.select(alert))}


def transitions(engine: Engine) -> list[tuple[str, str]]:
    with transaction(engine) as connection:
        query = sa.select(alert_event).order_by(alert_event.c.alert_id, alert_event.c.id)
        return [(row.from_state, row.to_state) for row in connection.execute(query)]


@dataclass
class Told:
    """Stands in for the channels."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)
    barrier: Barrier | None = None
    broken: bool = False

    failing: bool = False

    def __call__(self, _settings: Settings, document: dict[str, Any], only: Any = None) -> list[Delivery]:
        if self.broken:
            raise KeyboardInterrupt
        with self.lock:
            self.documents.append(document)
        if self.barrier is not None:
            self.barrier.wait(10)
        channels = [Delivery("log", True, "written")]
        if self.failing or only:
            channels.append(Delivery("webhook", not self.failing, "as told"))
        return [delivery for delivery in channels if only is None or delivery.channel in only]

    @property
    def of(self) -> list[tuple[str, str]]:
        return sorted((document["column"], document["state"]) for document in self.documents)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    stand_in = Told()
    monkeypatch.setattr(alerting, "notify", stand_in)
    return stand_in


def deliver(engine: Engine) -> int:
    return alerting.deliver(engine, Settings())


# ---- steps


def test_nothing_is_kept_of_what_was_always_well(engine: Engine, version: Audited) -> None:
    audited(version, (1, "ok"), (2, "ok"))
    assert states(engine) == {}
    assert transitions(engine) == []


def test_an_alert_fires_and_resolves_step_by_step(engine: Engine, version: Audited) -> None:
    audited(version, (1, "warn"), (2, "warn"), (3, "warn"), (4, "ok"), (5, "ok"), (6, "ok"))
    assert states(engine) == {("x", "ks"): "resolved"}
    assert transitions(engine) == [("ok", "pending"), ("pending", "firing"), ("firing", "resolved")]


def test_a_window_that_is_audited_again_is_no_second_step(engine: Engine, version: Audited) -> None:
    audited(version, (1, "warn"), (1, "warn"), (1, "warn"))
    assert states(engine) == {("x", "ks"): "pending"}
    assert transitions(engine) == [("ok", "pending")]


@pytest.mark.parametrize("known", [False, True], ids=["new alert", "known alert"])
def test_two_audits_of_a_version_at_once_lose_no_step(engine: Engine, version: Audited, known: bool) -> None:
    """Of twenty columns, in two windows; both audits move each of them."""
    columns = [f"c{number:02}" for number in range(20)]
    first = 0
    if known:
        observe(version, run_of(version, 1), *(seen(1, "warn", column) for column in columns))
        first = 1
    work = [
        (
            run_of(version, window),
            [seen(window, "warn", column) for column in (columns if window % 2 else columns[::-1])],
        )
        for window in range(first + 1, first + 4)
    ]
    at_once(*[lambda run=run, found=found: observe(version, run, *found) for run, found in work])
    assert set(states(engine).values()) == {"firing"}
    assert transitions(engine) == [("ok", "pending"), ("pending", "firing")] * 20


def test_an_audit_and_a_person_at_once_lose_no_step(engine: Engine, version: Audited) -> None:
    audited(version, (1, "warn"), (2, "warn"))
    with transaction(engine) as connection:
        alert_id = connection.execute(sa.select(alert.c.id)).scalar_one()

    def ack() -> None:
        with transaction(engine) as connection:
            row = alerts.get(connection, version.tenant, alert_id, lock=True)
            state, _ = acknowledge(AlertState.model_validate(row.machine), "ann", datetime.now(UTC))
            alerts.put(
                connection,
                model_id=row.model_id,
                version_id=row.version_id,
                column=row.column_name,
                check=row.check,
                machine=state.model_dump(mode="json"),
            )

    run = run_of(version, 3)
    at_once(ack, lambda: observe(version, run, seen(3)))
    with transaction(engine) as connection:
        row = alerts.get(connection, version.tenant, alert_id)
    state = AlertState.model_validate(row.machine)
    assert (row.state, state.acknowledged_by, len(state.recent)) == ("acknowledged", "ann", 3)


def test_versions_do_not_wait_for_each_other(engine: Engine, version: Audited) -> None:
    other = register(engine, name="other")
    mine, theirs = run_of(version, 1), run_of(other, 1)
    with transaction(engine) as connection:
        alerting.observe(connection, mine, [seen(1)])
        observe(other, theirs, seen(1))  # would wait for ever
    assert transitions(engine) == [("ok", "pending")] * 2


def test_an_alert_changed_when_its_state_did(engine: Engine, version: Audited) -> None:
    def changed_at() -> datetime:
        with transaction(engine) as connection:
            moment: datetime = connection.execute(sa.select(alert.c.changed_at)).scalar_one()
            return moment

    audited(version, (1, "warn"), (2, "warn"))
    before = changed_at()
    audited(version, (3, "warn"))
    assert changed_at() == before
    audited(version, (4, "ok"), (5, "ok"), (6, "ok"))
    assert changed_at() > before


# ---- telling


def test_each_transition_that_matters_is_told_once_and_quiet_ones_never(
    engine: Engine, version: Audited, told: Told
) -> None:
    audited(version, (1, "warn"))
    assert deliver(engine) == 0
    audited(version, (2, "warn"))
    assert deliver(engine) == 1
    audited(version, (3, "ok"), (4, "ok"), (5, "ok"))
    assert deliver(engine) == 1
    assert deliver(engine) == 0
    assert told.of == [("x", "firing"), ("x", "resolved")]
    document = told.documents[0]
    assert (document["model"], document["model_version"], document["check"]) == ("m", "1.0.0", "ks")
    with transaction(engine) as connection:
        kept = connection.execute(sa.select(alert_event.c.deliveries).order_by(alert_event.c.id)).scalars().all()
    delivered = [{"channel": "log", "ok": True, "detail": "written"}]
    assert list(kept) == [[], delivered, delivered]


def test_workers_that_tell_at_once_tell_each_once(engine: Engine, version: Audited, told: Told) -> None:
    columns = [f"c{number:02}" for number in range(12)]
    for window in (1, 2):
        observe(version, run_of(version, window), *(seen(window, "warn", column) for column in columns))
    counts = at_once(*[lambda: deliver(engine)] * 4)
    assert sum(counts) == 12
    assert told.of == [(column, "firing") for column in columns]


def test_what_one_worker_is_telling_no_other_tells(engine: Engine, version: Audited, told: Told) -> None:
    for window in (1, 2):
        observe(version, run_of(version, window), seen(window, column="a"), seen(window, column="b"))
    told.barrier = Barrier(2)  # each waits in its channel until the other is there: they hold one each
    assert at_once(lambda: deliver(engine), lambda: deliver(engine)) == [1, 1]
    assert told.of == [("a", "firing"), ("b", "firing")]


def test_what_nobody_was_told_of_when_a_worker_died_is_told_later(engine: Engine, version: Audited, told: Told) -> None:
    audited(version, (1, "warn"), (2, "warn"))
    told.broken = True
    with pytest.raises(KeyboardInterrupt):
        deliver(engine)
    told.broken = False
    assert deliver(engine) == 1
    assert told.of == [("x", "firing")]


def make_due(engine: Engine) -> None:
    """As if the time of the next attempts had come."""
    with transaction(engine) as connection:
        due = alert_event.c.next_attempt_at.is_not(None)
        connection.execute(sa.update(alert_event).where(due).values(next_attempt_at=sa.func.now()))


def deliveries(engine: Engine) -> list[list[tuple[str, bool]]]:
    with transaction(engine) as connection:
        kept = connection.execute(sa.select(alert_event.c.deliveries).order_by(alert_event.c.id)).scalars()
        return [[(each["channel"], each["ok"]) for each in found] for found in kept if found]


def test_a_channel_that_failed_is_tried_again_and_no_other(engine: Engine, version: Audited, told: Told) -> None:
    audited(version, (1, "warn"), (2, "warn"))
    told.failing = True
    assert deliver(engine) == 1
    assert deliver(engine) == 0, "not at once"
    make_due(engine)
    assert deliver(engine) == 1
    assert deliveries(engine) == [[("log", True), ("webhook", False)]]
    told.failing = False
    make_due(engine)
    assert deliver(engine) == 1
    assert deliveries(engine) == [[("log", True), ("webhook", True)]]
    make_due(engine)
    assert deliver(engine) == 0


def test_a_channel_that_never_works_is_given_up(engine: Engine, version: Audited, told: Told) -> None:
    audited(version, (1, "warn"), (2, "warn"))
    told.failing = True
    attempts = 0
    while deliver(engine):
        attempts += 1
        make_due(engine)
    assert attempts == 7
    assert deliveries(engine) == [[("log", True), ("webhook", False)]]


def test_nobody_hears_that_it_fired_after_that_it_has_resolved(engine: Engine, version: Audited, told: Told) -> None:
    audited(version, (1, "warn"), (2, "warn"))
    told.failing = True
    deliver(engine)
    told.failing = False
    audited(version, (3, "ok"), (4, "ok"), (5, "ok"))
    deliver(engine)
    make_due(engine)
    assert deliver(engine) == 0
    assert [document["state"] for document in told.documents] == ["firing", "resolved"]


def test_of_one_alert_only_one_worker_tells_at_a_time(engine: Engine, version: Audited, told: Told) -> None:
    audited(version, (1, "warn"), (2, "warn"), (3, "ok"), (4, "ok"), (5, "ok"))
    with transaction(engine) as connection:
        first = alerts.take_due(connection)
        assert first is not None
        assert deliver(engine) == 0
    assert deliver(engine) == 2
    assert [document["state"] for document in told.documents] == ["firing", "resolved"]


def test_an_audit_that_is_undone_fires_nothing(engine: Engine, version: Audited, told: Told) -> None:
    audited(version, (1, "warn"))
    run = run_of(version, 2)
    with engine.connect() as connection:
        alerting.observe(connection, run, [seen(2)])
        connection.rollback()
    assert states(engine) == {("x", "ks"): "pending"}
    assert deliver(engine) == 0
    observe(version, run, seen(2))
    assert deliver(engine) == 1
