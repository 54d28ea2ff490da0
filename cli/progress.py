"""How a job goes on, shown while it does: bars on a terminal, now and then a line elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from cli.terminal import printable, say, standard_error

if TYPE_CHECKING:
    from rich.progress import TaskID

    from scorehouse_client import Job

LINE_SECONDS = 3.0
MB = 1_000_000


class Display(Protocol):
    """Each method suits the client's progress function of that stage."""

    def upload(self, sent: int, total: int | None) -> None: ...
    def job(self, job: Job) -> None: ...
    def download(self, received: int, total: int | None) -> None: ...


@contextmanager
def shown(quiet: bool = False) -> Iterator[Display]:
    """The display that suits standard error."""
    if quiet:
        yield Nothing()
    elif sys.stderr.isatty():
        with Bars() as bars:
            yield bars
    else:
        yield Lines()


class Nothing:
    def upload(self, sent: int, total: int | None) -> None:
        pass

    def job(self, job: Job) -> None:
        pass

    def download(self, received: int, total: int | None) -> None:
        pass


class Lines:
    """A line every few seconds, and one at the end of each stage that knows its end."""

    def __init__(self, interval: float = LINE_SECONDS) -> None:
        self._interval = interval
        self._due: dict[str, float] = {}
        self._rate = Rate()

    def upload(self, sent: int, total: int | None) -> None:
        rate = self._rate("uploaded", sent)
        self._line("uploaded", f"{_bytes(sent, total)}, {rate / MB:,.0f} MB/s", last=sent == total)

    def job(self, job: Job) -> None:
        self._line("scored", scoring(job), last=job.finished)

    def download(self, received: int, total: int | None) -> None:
        rate = self._rate("downloaded", received)
        self._line("downloaded", f"{_bytes(received, total)}, {rate / MB:,.0f} MB/s", last=received == total)

    def _line(self, stage: str, text: str, last: bool) -> None:
        now = time.monotonic()
        if last or now >= self._due.setdefault(stage, now + self._interval):
            self._due[stage] = now + self._interval
            say(f"{stage} {text}")


class Bars:
    """One bar per stage, each shown when its stage begins."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415  # takes time, and few see bars

        self._progress = Progress(
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[detail]}", markup=False),
            console=standard_error(),
        )
        self._tasks: dict[str, TaskID] = {}
        self._rate = Rate()

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def upload(self, sent: int, total: int | None) -> None:
        self._update("uploading", sent, total, f"{_bytes(sent, total)}  {self._rate('up', sent) / MB:,.0f} MB/s")

    def job(self, job: Job) -> None:
        self._end("uploading")
        # Until its rows are counted nothing can be said about a job but that it is there.
        self._update("scoring", job.rows.done, job.rows.total or None, scoring(job))

    def download(self, received: int, total: int | None) -> None:
        rate = self._rate("down", received)
        self._update("downloading", received, total, f"{_bytes(received, total)}  {rate / MB:,.0f} MB/s")

    def _update(self, stage: str, done: int, total: int | None, detail: str) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, detail=detail)
        self._progress.update(self._tasks[stage], completed=done, total=total, detail=detail)

    def _end(self, stage: str) -> None:
        """A stream's length is known when it has ended."""
        if stage in self._tasks:
            task = self._task(stage)
            self._progress.update(self._tasks[stage], total=max(task.completed, 1), completed=max(task.completed, 1))

    def _task(self, stage: str) -> Any:
        return next(task for task in self._progress.tasks if task.id == self._tasks[stage])


class Rate:
    """Bytes per second since a stage began, or began again."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, int]] = {}

    def __call__(self, stage: str, done: int) -> float:
        now = time.monotonic()
        start, first = self._began.setdefault(stage, (now, done))
        if done < first:
            start, first = self._began[stage] = (now, done)
        return (done - first) / (now - start) if now > start else 0.0


def scoring(job: Job) -> str:
    """Rows done, rows per second, what is left, and the state."""
    parts = [f"{job.rows.done:,} of {job.rows.total:,} rows"]
    if job.rows_per_second:
        parts.append(f"{job.rows_per_second:,.0f} rows/s")
    if job.eta_seconds and not job.finished:
        parts.append(f"{_duration(job.eta_seconds)} left")
    if job.state == "queued" and job.queue_position:
        parts.append(f"place {job.queue_position:,} in the queue")
    if job.rows.errored:
        parts.append(f"{job.rows.errored:,} errored")
    return ", ".join([*parts, printable(job.state.replace("_", " "))])


def _bytes(done: int, total: int | None) -> str:
    return f"{done / MB:,.1f} MB" if total is None else f"{done / MB:,.1f} of {total / MB:,.1f} MB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
