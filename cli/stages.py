"""How a training goes on: a bar per stage with what is left, or, where nobody watches, a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cli.terminal import printable, say, standard_error

LINE_SECONDS = 5.0


@contextmanager
def stages(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A function (stage, done, total) that shows how far each stage is; a total of 0 is not known."""
    if quiet:
        yield lambda *_: None
    elif sys.stderr.isatty():
        with Bars() as bars:
            yield bars.show
    else:
        yield Lines().show


class Bars:
    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<32}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,.0f}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=standard_error(),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(printable(stage), total=total or None)
        self._progress.update(self._tasks[stage], completed=done, total=total or None)


class Lines:
    """A line when a stage begins and when it is done, and every few seconds between with what is left."""

    def __init__(self, interval: float = LINE_SECONDS) -> None:
        self._interval = interval
        self._began: dict[str, float] = {}
        self._told = 0.0

    def show(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        begins = stage not in self._began
        began = self._began.setdefault(stage, now)
        ended = bool(total) and done >= total
        if not (begins or ended) and now - self._told < self._interval:
            return
        self._told = now
        left = f", {(now - began) / done * (total - done):,.0f} s left" if done and total > done else ""
        how_far = f"{done:,} of {total:,}" if total else f"{done:,} rows"
        say(f"{stage}: {how_far}{left}")
