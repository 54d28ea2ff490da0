"""Whoever can write to the broker: he can waste a little time, and neither run code, nor score, nor stop a worker."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from celery import Celery
from customers import File
from harness import MODEL, WORKERS, Harness
from test_broker import Trap
from trial import Trial

from permits import LANES, QUEUES

Begin = Callable[[int | str, str], Trial]

MANY = 20_000
COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("shutdown", {}),
    ("pool_grow", {"n": 50}),
    ("pool_shrink", {"n": 50}),
    ("pool_restart", {"reload": True, "modules": ["os"]}),
    ("autoscale", {"max": 50, "min": 50}),
    ("rate_limit", {"task_name": "score.bulk", "rate_limit": "1/h"}),
    ("time_limit", {"task_name": "score.bulk", "hard": 0.001, "soft": 0.001}),
    ("cancel_consumer", {"queue": "bulk"}),
    ("add_consumer", {"queue": "elsewhere"}),
    ("revoke", {"task_id": str(uuid4()), "terminate": True}),
    ("election", {"id": "x", "topic": "y", "action": "z"}),
    ("hello", {"from_node": "x", "revoked": {}}),
    ("objgraph", {"num": 5}),
    ("memdump", {}),
    ("no_such_command", {"x": "y" * 10_000}),
]


@contextmanager
def forger(harness: Harness) -> Iterator[Celery]:
    app = Celery("forger", broker=harness.valkey.url)
    try:
        yield app
    finally:
        app.close()


def test_messages_that_say_more_than_a_task_change_nothing(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin("12b", "messages with pickles, YAML, absurd arguments, callbacks, ETAs and time limits")
    job_id, mains = trial.submit(file), harness.pids

    def send() -> None:
        with harness.broker() as broker:
            for queue in QUEUES:
                broker.lpush(queue, *(json.dumps(each).encode() for each in hostile(queue, harness, job_id)))

    trial.repeatedly(send, job_id, every=1.0)
    assert trial.judge(job_id, file).problems == []
    still_works(harness, mains)


def test_a_flood_of_permits_does_not_stop_real_work(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin("12c", f"{MANY:,} forged permits on each lane")
    mains, permit = harness.pids, json.dumps(message("bulk", "score.bulk")).encode()

    def flood() -> None:
        with harness.broker() as broker:
            for lane in LANES:
                for _ in range(MANY // 1_000):
                    broker.lpush(lane, *[permit.replace(b"score.bulk", f"score.{lane}".encode())] * 1_000)

    trial.inject(flood)
    job_id = trial.submit(file)
    assert trial.judge(job_id, file).problems == []
    with harness.broker() as broker:
        broker.delete(*LANES)
    still_works(harness, mains)


def test_nobody_commands_a_worker_through_the_broker(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin("12d", "shutdown, pool_grow, rate_limit and every other command as a broadcast")
    job_id, mains = trial.submit(file), harness.pids
    children = {name: len(harness.children(name)) for name in WORKERS}
    with forger(harness) as app:

        def command() -> None:
            for name, arguments in COMMANDS:
                app.control.broadcast(name, arguments=arguments)
            with harness.broker() as broker:
                broker.publish("/0.celery.pidbox", b"\x80\x04garbage")
                broker.publish("/0.celery.pidbox", pickle.dumps(Trap(harness.trap)))
                broker.publish("/0.celery.pidbox", b"{}")

        trial.repeatedly(command, job_id, every=1.0)
        assert trial.judge(job_id, file).problems == []
        answers = app.control.inspect(timeout=10).ping() or {}
        assert len(answers) >= len(WORKERS), "workers can no longer be looked at"
    assert {name: len(harness.children(name)) for name in WORKERS} == children
    still_works(harness, mains)


def still_works(harness: Harness, mains: Any) -> None:
    single = harness.client.submit(MODEL, harness.customers.record(1), wait=10)
    assert single.state == "succeeded"
    assert harness.pids == mains, "a message ended a worker"
    assert not harness.trap.exists(), "code of a message ran"


def message(queue: str, task: Any, body: Any = None, kind: str = "application/json", **headers: Any) -> dict[str, Any]:
    """As Celery writes it, with whatever else a forger puts in."""
    content = body if isinstance(body, bytes) else json.dumps([[], {}, {}] if body is None else body).encode()
    return {
        "body": base64.b64encode(content).decode(),
        "content-type": kind,
        "content-encoding": "utf-8",
        "headers": {"task": task, "id": str(uuid4()), "lang": "py", **headers},
        "properties": {
            "delivery_tag": str(uuid4()),
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": "base64",
        },
    }


def hostile(queue: str, harness: Harness, job_id: str) -> list[dict[str, Any]]:
    touch = f"touch {harness.trap}"
    task = "score.bulk"
    links = {
        "callbacks": [{"task": "os.system", "args": [touch]}],
        "errbacks": [{"task": "os.system", "args": [touch]}],
    }
    return [
        message(queue, task, pickle.dumps(Trap(harness.trap)), "application/x-python-serialize"),
        message(queue, task, f'!!python/object/apply:os.system ["{touch}"]'.encode(), "application/x-yaml"),
        message(queue, task, pickle.dumps(Trap(harness.trap))),  # says that it is JSON
        message(queue, task, [["x" * 100_000, {"job": job_id, "tenant": "other"}], {"lane": -1}, {}]),
        message(queue, task, [[], {}, links]),
        message(queue, task, [[], {}, {"chain": [{"task": "model.register"}], "chord": {"task": "tick.kick"}}]),
        message(queue, task, eta="2999-01-01T00:00:00+00:00", retries=-1, timelimit=[0.001, 0.001]),
        message(queue, task, group=str(uuid4()), chord=str(uuid4()), ignore_result=False, reply_to="x"),
        message(queue, "os.system", [[touch], {}, {}]),
        message(queue, "celery.backend_cleanup"),
        message(queue, "celery.chord_unlock", [[str(uuid4()), {"task": "os.system", "args": [touch]}], {}, {}]),
        message(queue, "celery.starmap", [[{"task": "score.bulk"}, [[1], [2]]], {}, {}]),
        message(queue, ["score.bulk"]),
        message(queue, task, id="../../etc/passwd"),
        message(queue, task, expires="soon"),
        message(queue, task, compression="zlib"),
    ]
