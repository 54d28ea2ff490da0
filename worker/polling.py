"""A worker without a broker: it asks Postgres what waits, at an interval, where others are given permits and ticks.

    python -m worker.polling --queues interactive,bulk,ticks,audits --concurrency 2

It runs the very tasks that permits and ticks name, for the same queues and at the same intervals. A parent that holds
nothing keeps some children alive; each of them polls, and does in turns what is due. SIGTERM drains: the children finish
what is in their hands.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import logs
from errors import ScorehouseError
from settings import Settings, get_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

_log = logs.get(__name__)

# How soon the end of a child is noticed, and the shortest time between two starts in its place.
_LOOK_SECONDS = 0.2
_RESTART_SECONDS = 1.0
# A database that is away is asked again after this long.
_AWAY_SECONDS = 1.0
# Beyond what a child may take for the work in its hands.
_GRACE_SECONDS = 5.0
# It publishes permits, and nobody takes any.
_ONLY_WITH_A_BROKER = "tick.kick"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--queues", required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--child-of", type=int, help="of the worker whose child this is to be")
    given = parser.parse_args()
    settings = get_settings()
    logs.configure(settings)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    if given.child_of is None:
        _keep_children([*sys.orig_argv, "--child-of", str(os.getpid())], given.concurrency, settings, stopping)
    else:
        _serve(given.queues.split(","), settings, stopping, parent=given.child_of)


def _keep_children(argv: list[str], count: int, settings: Settings, stopping: threading.Event) -> None:
    """Start children, start others in place of those that end, and see to the end of all when it is time to stop."""
    children: list[subprocess.Popen[bytes]] = []
    while not stopping.is_set():
        for child in [each for each in children if each.poll() is not None]:
            children.remove(child)
            _log.warning("child_ended", pid=child.pid, code=child.returncode)
            stopping.wait(_RESTART_SECONDS)  # one that cannot start must not be started all the time
        while len(children) < count and not stopping.is_set():
            children.append(subprocess.Popen(argv))
        stopping.wait(_LOOK_SECONDS)
    for child in children:
        child.terminate()
    deadline = time.monotonic() + settings.drain_seconds + settings.chunk_time_limit + _GRACE_SECONDS
    for child in children:
        try:
            child.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _serve(queues: Collection[str], settings: Settings, stopping: threading.Event, *, parent: int) -> None:
    """Be a child, until it is time to stop or the parent is gone."""
    from worker import app  # noqa: PLC0415 - only a child needs what scores

    engine = app.start(polls=True)
    due = {name: 0.0 for name, entry in _ticks(queues).items() if entry["task"] != _ONLY_WITH_A_BROKER}
    try:
        while not stopping.is_set() and os.getppid() == parent:
            begun = time.monotonic()
            pause = settings.poll_seconds
            try:
                _take_turns(engine, queues, due, stopping)
            except ScorehouseError as exc:
                _log.warning("poll_failed", reason=str(exc))
                pause = max(pause, _AWAY_SECONDS)
            stopping.wait(max(begun + pause - time.monotonic(), 0.0))
    finally:
        app.stop()


def _take_turns(engine: Engine, queues: Collection[str], due: dict[str, float], stopping: threading.Event) -> None:
    """Once all that is due by the clock, and once each kind of work that waits.

    Raises:
        ScorehouseError: the database is away.
    """
    from permits import PERMITS  # noqa: PLC0415 - as above
    from worker import sweeps  # noqa: PLC0415

    for name, entry in _ticks(queues).items():
        if name in due and due[name] <= time.monotonic() and not stopping.is_set():
            due[name] = time.monotonic() + entry["schedule"]
            _run(entry["task"])
    for kind, count in sweeps.waiting(engine).items():
        task, queue = PERMITS[kind]
        if count and queue in queues and not stopping.is_set():
            _run(task)


def _run(name: str) -> None:
    """A task, here and now. What goes wrong in one is told of and keeps nothing else from being done."""
    from worker import tasks  # noqa: PLC0415 - as above

    try:
        told = tasks.named(name)()
    except ScorehouseError:
        raise
    except Exception:
        _log.exception("task_failed", task=name)
    else:
        _log.debug("task_done", task=name, told=told)


def _ticks(queues: Collection[str]) -> dict[str, dict[str, Any]]:
    """What beat would send to these queues."""
    from worker.app import app  # noqa: PLC0415 - as above

    return {name: entry for name, entry in app.conf.beat_schedule.items() if entry["options"]["queue"] in queues}


if __name__ == "__main__":
    main()
