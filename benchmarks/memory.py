"""Peak memory of the running stack's processes while something happens to it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psutil

INTERVAL_SECONDS = 0.25
MIB = 1024 * 1024


@dataclass
class Peak:
    """In MiB. `pss` is the sum over the group's processes, with shared pages split among those that share them;
    `largest_rss` is of the one biggest process and counts shared pages in full."""

    pss: float = 0.0
    largest_rss: float = 0.0
    processes: int = 0

    def see(self, pss: float, largest_rss: float, processes: int) -> None:
        self.pss = max(self.pss, pss)
        self.largest_rss = max(self.largest_rss, largest_rss)
        self.processes = max(self.processes, processes)


@dataclass
class MemorySampler:
    """Samples groups of processes from `with` to the end of its block; each group is a process and all below it.

    A process that ends between two looks is left out of that look.
    """

    roots: Mapping[str, int]
    peaks: dict[str, Peak] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample_until_stopped(self) -> None:
        while True:
            for name, pid in self.roots.items():
                self._look(name, pid)
            if self._stop.wait(INTERVAL_SECONDS):
                return

    def _look(self, name: str, pid: int) -> None:
        seen = []
        for process in _tree(pid):
            try:
                memory = process.memory_full_info()
            except psutil.Error:
                continue
            seen.append((memory.pss / MIB, memory.rss / MIB))
        if seen:
            pss, rss = zip(*seen, strict=True)
            self.peaks.setdefault(name, Peak()).see(sum(pss), max(rss), len(seen))


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
