"""Holding a run while a fit goes on: a thread renews the lease, so that only a dead worker loses it."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from sqlalchemy import Engine

import logs
from db import trainings
from db.engine import transaction
from errors import Fenced, Unavailable

_log = logs.get(__name__)

_SECONDS = trainings.LEASE_SECONDS / 4


class Lease:
    """As a context: renews until the block ends. `check` raises once the run is another worker's."""

    def __init__(self, engine: Engine, run: Any, seconds: float = _SECONDS) -> None:
        self._engine = engine
        self._run = run
        self._seconds = seconds
        self._lost = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="training-lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """Raises Fenced when another worker took the run over."""
        if self._lost.is_set():
            raise Fenced(f"the training {self._run.id} was taken over by another worker")

    def _renew(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                with transaction(self._engine) as connection:
                    if not trainings.renew(connection, self._run):
                        self._lost.set()
                        return
            except Unavailable as exc:
                _log.warning("lease_not_renewed", training=str(self._run.id), reason=str(exc))
