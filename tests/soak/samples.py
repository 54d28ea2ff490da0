"""What the processes and the tables are like, every few seconds, and whether they grow."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from harness import Harness

MIB = 1024 * 1024
EVERY_SECONDS = 3.0
# Caches fill and allocators settle at first: what is judged is the rest.
SETTLED_AFTER = 1 / 3
# What may be gained by chance over the judged time: a share of the median, and at least so much of the unit.
SHARE = 0.10
LEAST = {"pss_mib": 24.0, "rss_mib": 24.0, "descriptors": 8.0, "connections": 8.0, "dead": 3_000.0}
# Their rows change all the time, and their number hardly does.
HOT_TABLES = ("worker_heartbeat", "tenant_usage", "tenant_day", "tenant_rate", "chunk_profile", "periodic_run")
# Data is kept, so these grow by what comes in; a row that is gone must not stay for long.
DATA_TABLES = ("job", "chunk", "label")
# Shared buffers fill up to their size, which is no leak.
NOT_JUDGED = ("Postgres",)


@dataclass(frozen=True)
class Sample:
    """`name` is of a part of the stack or of a table, or `all`."""

    at: float
    measure: str
    name: str
    value: float


@dataclass(frozen=True)
class Trend:
    """The settled part of a series: its median, what it gains per hour, and over its whole length."""

    measure: str
    name: str
    median: float
    highest: float
    per_hour: float
    gained: float
    judged: bool
    holds: bool


class Sampler:
    def __init__(self, harness: Harness) -> None:
        self.samples: list[Sample] = []
        self.failures = 0
        self._harness = harness
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, name="sampler")
        began = self._began = time.monotonic()
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(60)
            self.seconds = time.monotonic() - began

    def _run(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            try:
                self._look()
            except (psutil.Error, OSError):  # a process ended in between
                self.failures += 1

    def _look(self) -> None:
        harness, at = self._harness, time.monotonic() - self._began
        roots = {**harness.pids, "Postgres": harness.postgres.pid, "Valkey": harness.valkey.pid}
        for name, pid in roots.items():
            root = psutil.Process(int(pid or 0))
            members = [root, *root.children(recursive=True)]
            memory = [each.memory_full_info() for each in members]
            self._note(at, "pss_mib", name, sum(each.pss for each in memory) / MIB)
            # Of the largest process: a child that leaks must not hide among its siblings.
            self._note(at, "rss_mib", name, max(each.rss for each in memory) / MIB)
            self._note(at, "descriptors", name, max(each.num_fds() for each in members))
        (connections,) = harness.query(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE backend_type = 'client backend'"
        )
        self._note(at, "connections", "all", connections.n)
        query = (
            "SELECT relname, n_dead_tup, n_live_tup, pg_total_relation_size(relid) AS bytes, vacuum_count + autovacuum_count "
            "AS vacuums FROM pg_stat_user_tables WHERE relname = ANY (:names)"
        )
        for row in harness.query(query, names=[*HOT_TABLES, *DATA_TABLES]):
            self._note(at, "dead", row.relname, row.n_dead_tup)
            self._note(at, "live", row.relname, row.n_live_tup)
            self._note(at, "size_mib", row.relname, row.bytes / MIB)
            self._note(at, "vacuums", row.relname, row.vacuums)

    def _note(self, at: float, measure: str, name: str, value: float) -> None:
        self.samples.append(Sample(round(at, 1), measure, name, round(float(value), 3)))


def trends(samples: list[Sample]) -> list[Trend]:
    """A trend of each series, by the median of the slopes between its points (Theil-Sen), which no spike moves."""
    series: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        series[sample.measure, sample.name].append(sample)
    end = max((sample.at for sample in samples), default=0.0)
    found = []
    for (measure, name), points in sorted(series.items()):
        settled = [point for point in points if point.at >= end * SETTLED_AFTER]
        if len(settled) >= 3:
            found.append(_trend(measure, name, settled))
    return found


def _trend(measure: str, name: str, points: list[Sample]) -> Trend:
    thinned = points[:: max(len(points) // 150, 1)]
    slopes = [
        (later.value - earlier.value) / (later.at - earlier.at)
        for place, earlier in enumerate(thinned)
        for later in thinned[place + 1 :]
        if later.at > earlier.at
    ]
    slope = statistics.median(slopes)
    median = statistics.median(point.value for point in points)
    gained = slope * (points[-1].at - points[0].at)
    judged = measure in LEAST and name not in NOT_JUDGED
    bound = max(SHARE * median, LEAST.get(measure, 0.0))
    return Trend(
        measure=measure,
        name=name,
        median=round(median, 1),
        highest=round(max(point.value for point in points), 1),
        per_hour=round(slope * 3600, 1),
        gained=round(gained, 1),
        judged=judged,
        holds=not judged or gained <= bound,
    )
