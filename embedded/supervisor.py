"""Keeps the processes of a stack running, and stops them in order.

A child that dies is started again, after 1, 2, 4 … seconds; one that dies more than five times within a minute stops the
whole stack, because a restart does not mend it and its last words would scroll away. The first SIGINT, SIGTERM or SIGHUP
drains: each stage in turn gets its stop signal and its time. The second one hurries.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from embedded import EmbeddedError
from embedded.console import Console

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TICK_SECONDS = 0.05
HEALTHY_SECONDS = 60.0
MAX_DEATHS = 5
HURRY_SECONDS = 5.0


class StopRequested(BaseException):
    """A stop signal came while the stack was still starting. Like KeyboardInterrupt, nothing on the way may swallow it."""


class Child(Protocol):
    """What `Program`, `Postgres` and `Valkey` have in common."""

    @property
    def name(self) -> str: ...
    @property
    def stop_signal(self) -> signal.Signals: ...
    @property
    def hurry_signal(self) -> signal.Signals: ...
    @property
    def stop_seconds(self) -> float: ...
    @property
    def pid(self) -> int | None: ...
    def start(self) -> None: ...
    def poll(self) -> int | None: ...
    def send(self, number: signal.Signals) -> None: ...
    def stop(self) -> None: ...
    def log_tail(self) -> list[str]: ...


@dataclass
class _Watch:
    """A child and its record. `restart_at` is set while it is down, on the monotonic clock like the other times."""

    child: Child
    stage: int
    started_at: float = 0.0
    restart_at: float | None = None
    deaths: deque[float] = field(default_factory=deque)
    backoff: float = 1.0


class Supervisor:
    """Use it as a context manager, in the main thread: it takes over the stop signals, and leaving it stops all children.

    Args:
        backoff: seconds before the first restart; each further one waits twice as long.
    """

    def __init__(self, console: Console, *, backoff: float = 1.0) -> None:
        self._console = console
        self._backoff = backoff
        self._watches: list[_Watch] = []
        self._on_restart: Callable[[], None] | None = None
        self._stop_requests = 0
        self._interruptible = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._on_stop_signal) for number in STOP_SIGNALS}
        self._interruptible = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._interruptible = False
        self._drain()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def pids(self) -> dict[str, int]:
        return {watch.child.name: watch.child.pid for watch in self._watches if watch.child.pid is not None}

    def start(self, child: Child, stage: int) -> None:
        """Start a child and keep it running; at the end the stages stop in ascending order.

        Raises:
            EmbeddedError: it did not start.
        """
        watch = _Watch(child, stage, backoff=self._backoff)
        self._watches.append(watch)  # before the start: a start that is interrupted has something to stop, too
        child.start()
        watch.started_at = time.monotonic()

    def wait_until(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Keep the children running until `ready()`.

        Raises:
            EmbeddedError: not ready in that time, or a child that restarts do not mend.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{what} within {seconds:.0f} s; what the processes wrote stands above")
            self._tend()
            time.sleep(TICK_SECONDS)

    def run(self, on_restart: Callable[[], None] | None = None) -> None:
        """Keep the children running until a stop signal comes.

        Args:
            on_restart: called whenever a child was started again, and thus has another pid.

        Raises:
            EmbeddedError: a child that restarts do not mend; says which, why, and the last it wrote.
        """
        self._on_restart = on_restart
        self._interruptible = False  # from here on a stop is noticed between two steps, and none is left half done
        while not self._stop_requests:
            self._tend()
            time.sleep(TICK_SECONDS)

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_requests += 1
        if self._interruptible:
            self._interruptible = False
            raise StopRequested

    def _tend(self) -> None:
        for watch in self._watches:
            if watch.restart_at is None:
                self._notice_death(watch)
            elif time.monotonic() >= watch.restart_at:
                self._restart(watch)

    def _notice_death(self, watch: _Watch) -> None:
        code = watch.child.poll()
        if code is not None:
            watch.child.stop()  # what is left of its group must not work beside its successor
            self._plan_restart(watch, _ended(code))

    def _restart(self, watch: _Watch) -> None:
        watch.restart_at = None
        try:
            watch.child.start()
            watch.started_at = time.monotonic()
        except EmbeddedError as error:
            self._plan_restart(watch, f"did not start: {error}")
            return
        if self._on_restart is not None:
            self._on_restart()

    def _plan_restart(self, watch: _Watch, why: str) -> None:
        now = time.monotonic()
        if now - watch.started_at >= HEALTHY_SECONDS:
            watch.backoff = self._backoff
        watch.deaths.append(now)
        while watch.deaths[0] < now - HEALTHY_SECONDS:
            watch.deaths.popleft()
        if len(watch.deaths) > MAX_DEATHS:
            said = "\n".join(f"    {line}" for line in watch.child.log_tail()[-20:])
            raise EmbeddedError(
                f"{watch.child.name} ended {len(watch.deaths)} times within {HEALTHY_SECONDS:.0f} s, "
                f"the last time it {why}. The last it wrote:\n{said or '    (nothing)'}"
            )
        self._console.say(f"{watch.child.name} {why}; starting it again in {watch.backoff:g} s")
        watch.restart_at = now + watch.backoff
        watch.backoff *= 2

    def _drain(self) -> None:
        for stage in sorted({watch.stage for watch in self._watches}):
            children = [watch.child for watch in self._watches if watch.stage == stage]
            self._stop_stage([child for child in children if child.pid is not None and child.poll() is None])
            for child in children:
                child.stop()

    def _stop_stage(self, children: list[Child]) -> None:
        """All of a stage at once: stop signal, then SIGKILL for those whose time is over."""
        if not children:
            return
        self._console.say(f"stopping {', '.join(child.name for child in children)}")
        deadlines = {child.name: time.monotonic() + child.stop_seconds for child in children}
        for child in children:
            child.send(child.stop_signal)
        hurried = False
        while alive := [child for child in children if child.poll() is None]:
            now = time.monotonic()
            if self._stop_requests > 1 and not hurried:
                hurried = True
                for child in alive:
                    child.send(child.hurry_signal)
                    deadlines[child.name] = min(deadlines[child.name], now + HURRY_SECONDS)
            for child in alive:
                if now > deadlines[child.name]:
                    self._console.say(f"{child.name} did not stop in time and is killed")
                    child.send(signal.SIGKILL)
                    deadlines[child.name] = now + HURRY_SECONDS
            time.sleep(TICK_SECONDS)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
