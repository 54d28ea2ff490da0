"""A broker that forgets, dies, stays away, hangs, is full, and says what it should not."""

from __future__ import annotations

import base64
import json
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from customers import Customers, File
from harness import MODEL, Harness
from trial import Trial

from permits import LANES, PERMITS, QUEUES, publish

Begin = Callable[[int | str, str], Trial]

CONSUMES_AGAIN_SECONDS = 10.0
# Accepting a submission writes to Postgres, and must not wait for the broker.
LATENCY_SECONDS = 2.0
# Hundreds of permits for nothing, each of which a worker takes and looks for work.
DRAINED_SECONDS = 180.0


def test_the_broker_forgets_everything_again_and_again(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(6, "FLUSHALL every 0.3 s")
    job_id = trial.submit(file)
    with harness.broker() as broker:
        trial.repeatedly(broker.flushall, job_id, every=0.3)
    assert trial.judge(job_id, file).problems == []


def test_the_broker_is_killed_and_comes_back_empty(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(7, "SIGKILL Valkey, restart it empty")
    job_id = trial.submit(file)
    trial.under_way(job_id)
    trial.inject(harness.kill_valkey)
    harness.until(lambda: not harness.chunks(job_id, "running"))
    done = harness.done(job_id)
    assert not harness.is_over(job_id), "the job was over without the broker: give it more rows"
    harness.valkey.start()
    trial.fault_ended()
    harness.until(lambda: harness.done(job_id) > done, seconds=CONSUMES_AGAIN_SECONDS)
    assert trial.judge(job_id, file).problems == []


def test_submissions_are_accepted_while_the_broker_is_away(
    begin: Begin, harness: Harness, customers: Customers
) -> None:
    trial = begin(9, "Valkey is down while jobs are submitted")
    few = customers.file(500)
    trial.inject(harness.kill_valkey)
    try:
        jobs = []
        for _ in range(20):
            began = time.monotonic()
            jobs.append(trial.submit(few))
            assert time.monotonic() - began < LATENCY_SECONDS
    finally:
        harness.valkey.start()
    trial.fault_ended()
    for job_id in jobs:
        assert trial.judge(job_id, few).problems == []


def test_the_broker_bounces_and_no_worker_is_deaf(begin: Begin, harness: Harness, customers: Customers) -> None:
    trial = begin(8, "Valkey is killed and started again, over and over without a pause")
    few = customers.file(500)
    mains, deaf = harness.pids, harness.events("deaf")
    job_id = trial.submit(few)

    def bounce() -> None:
        harness.kill_valkey()
        harness.valkey.start()

    for _ in range(round(2 * trial.seconds)):
        trial.inject(bounce)
    trial.fault_ended()
    assert trial.judge(job_id, few).problems == []
    _assert_both_lanes_hear(trial, harness, few)
    assert (harness.pids, harness.events("deaf")) == (mains, deaf), "a worker had to be started again to hear"


@contextmanager
def _paused(harness: Harness, seconds: float) -> Iterator[None]:
    """It ends by itself: CLIENT UNPAUSE would have to wait like everything else."""
    with harness.broker() as broker:
        broker.client_pause(round(1000 * seconds))
    yield
    with harness.broker() as broker:
        broker.ping()


@contextmanager
def _stopped(harness: Harness, _seconds: float) -> Iterator[None]:
    harness.valkey.send(signal.SIGSTOP)
    try:
        yield
    finally:
        harness.valkey.send(signal.SIGCONT)


@contextmanager
def _half_open(harness: Harness, _seconds: float) -> Iterator[None]:
    """Connections of before stay silent for ever, and nobody is told."""
    harness.to_valkey.black_hole()
    try:
        yield
    finally:
        harness.to_valkey.heal()


@contextmanager
def _full(harness: Harness, _seconds: float) -> Iterator[None]:
    with harness.broker() as broker:
        before = broker.config_get("maxmemory")["maxmemory"]
        broker.config_set("maxmemory", 1)
        try:
            yield
        finally:
            broker.config_set("maxmemory", before)


@pytest.mark.parametrize(
    ("fault", "what", "harm"),
    [
        (10, "Valkey hangs: CLIENT PAUSE", _paused),
        (10, "Valkey hangs: SIGSTOP", _stopped),
        (10, "the network to Valkey swallows everything, and forgets the connections that there were", _half_open),
        (11, "Valkey is at maxmemory and takes nothing more", _full),
    ],
)
def test_a_broker_that_hangs_or_is_full_costs_time_only(  # noqa: PLR0917 - pytest passes them by name
    fault: int, what: str, harm: Any, begin: Begin, harness: Harness, file: File
) -> None:
    trial = begin(fault, what)
    few, job_ids = harness.customers.file(500), []
    mains = harness.pids
    job_id = trial.submit(file)
    trial.under_way(job_id)
    with harm(harness, trial.seconds):
        trial.inject(lambda: None)
        ends = time.monotonic() + trial.seconds
        while not job_ids or time.monotonic() < ends:
            job_ids.append(_quickly(lambda: trial.submit(few)))
            single = _quickly(lambda: harness.client.submit(MODEL, harness.customers.record(1)))
            assert single.state in {"queued", "running", "succeeded"}
            assert _quickly(lambda: harness.ask("GET", "/health")).json()["database"] == "ok"
    trial.fault_ended()
    _assert_both_lanes_hear(trial, harness, few)
    for each in job_ids:
        assert trial.judge(each, few).problems == []
    assert trial.judge(job_id, file).problems == []
    assert harness.pids == mains, "a worker had to be started again"


def _quickly(act: Callable[[], Any]) -> Any:
    began = time.monotonic()
    done = act()
    assert time.monotonic() - began < LATENCY_SECONDS
    return done


def _assert_both_lanes_hear(trial: Trial, harness: Harness, few: File) -> None:
    """Within the time in which a broker must be found again, from now on; jobs of before may still stand in front."""
    began = time.monotonic()
    since = harness.query("SELECT clock_timestamp() AS now")[0].now
    job_id = trial.submit(few)
    single = harness.client.submit(MODEL, harness.customers.record(1), wait=CONSUMES_AGAIN_SECONDS)
    assert single.state == "succeeded", "the interactive lane does not hear"
    claimed = "SELECT 1 FROM chunk WHERE lane = 'bulk' AND started_at > :since LIMIT 1"
    harness.until(
        lambda: harness.query(claimed, since=since), seconds=began + CONSUMES_AGAIN_SECONDS - time.monotonic()
    )
    assert trial.judge(job_id, few).problems == []


def test_permits_that_are_many_forged_or_garbage_change_nothing(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(12, "each permit ten times, forged permits, pickles and garbage on every queue")
    job_id = trial.submit(file)
    app = Celery("forger", broker=harness.valkey.url)
    mains = harness.pids

    def forge() -> None:
        for kind in PERMITS:
            publish(app, kind, 10)
        for lane in LANES:
            app.send_task(f"score.{lane}", args=["all", {"job": job_id}], queue=lane)
            app.send_task("score.everything", kwargs={"job": job_id}, queue=lane)
        with harness.broker() as broker:
            for queue in QUEUES:
                broker.lpush(queue, *_garbage(queue, harness.trap))

    trial.repeatedly(forge, job_id, every=1.0)
    app.close()
    assert trial.judge(job_id, file).problems == []
    with harness.broker() as broker:
        harness.until(lambda: not any(broker.llen(queue) for queue in LANES), seconds=DRAINED_SECONDS)
    single = harness.client.submit(MODEL, harness.customers.record(1), wait=10)
    assert single.state == "succeeded"
    assert harness.pids == mains, "a message ended a worker"
    assert not harness.trap.exists(), "a pickle was loaded"


@dataclass
class Trap:
    """Pickled, it makes a file where it is loaded."""

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def _garbage(queue: str, trap: Path) -> list[bytes]:
    """What is no JSON, no message, no body, and a pickle that tells when it is loaded."""
    properties = {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": queue}}
    return [
        b"\x80\x04garbage",
        b"",
        b"[]",
        b"{}",
        b'"text"',
        json.dumps({"body": "e30=", "headers": {}}).encode(),
        json.dumps(_message(b"[[], {}, {", "application/json", properties)).encode(),
        json.dumps(_message(pickle.dumps(Trap(trap)), "application/x-python-serialize", properties)).encode(),
    ]


def _message(body: bytes, kind: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "body": base64.b64encode(body).decode(),
        "content-type": kind,
        "content-encoding": "binary",
        "headers": {"task": "score.bulk", "id": "forged", "lang": "py"},
        "properties": {**properties, "body_encoding": "base64"},
    }
