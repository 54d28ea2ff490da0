"""The heartbeat of a worker child: says that it lives and what it holds, keeps warm what is wanted, notices deafness."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property
from uuid import UUID

from celery import Celery
from sqlalchemy import Engine

import logs
from db import chunks, deployment_steps, deployments, workers
from db.deployment_steps import Wanted
from db.engine import transaction
from errors import ScorehouseError
from permits import celery_app, top_up
from settings import Settings
from worker import host
from worker.cache import Cache

_log = logs.get(__name__)

_SECONDS = 2.0
# Somebody watches a deployment: it is not to wait for the next beat.
_LOOK_SECONDS = 0.5
# A model that loads within this long is told of by the same beat; a larger one must not stop the heart.
_LOAD_SECONDS = 1.0
# Deafness is a matter of half a minute; looking for it is not worth a query at every beat.
_BEATS_PER_HEARING_TEST = 5
# A broker that has come back a moment ago has not woken everybody yet: from the first sign on, one at each beat.
_SIGNS_OF_DEAFNESS = 4


class Heartbeat:
    """A thread beside the scoring one, with its own short transactions."""

    def __init__(
        self,
        engine: Engine,
        cache: Cache,
        settings: Settings,
        *,
        owner: str,
        lanes: tuple[str, ...],
        on_beat: Callable[[], None],
        listens: bool = True,
    ) -> None:
        self._engine = engine
        self._cache = cache
        self._settings = settings
        self._owner = owner
        self._worker = host.owner(os.getppid(), 0.0)
        self._lanes = lanes
        self._on_beat = on_beat
        self._listens = listens  # to a broker; who polls cannot be deaf
        self._release = settings.release
        self._claimed = False
        self._signs_of_deafness = 0
        self._deployments: set[UUID] = set()
        self._warmer = ThreadPoolExecutor(1, "warm-up")
        self._warming: Future[None] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye, so that nobody counts on this child any more."""
        self._stopped.set()
        self._thread.join(timeout=5)
        try:
            with transaction(self._engine) as connection:
                workers.leave(connection, [self._owner])
        except ScorehouseError as exc:
            _log.info("goodbye_failed", reason=str(exc))

    def claimed(self) -> None:
        self._claimed = True

    def _run(self) -> None:
        beats = 0
        while not self._stopped.is_set():
            try:
                self._on_beat()
                self._beat()
                beats += 1
                if self._listens and (self._signs_of_deafness or beats % _BEATS_PER_HEARING_TEST == 0):
                    self._hearing_test()
            except ScorehouseError as exc:
                _log.warning("heartbeat_missed", reason=str(exc))
            except Exception:
                _log.exception("heartbeat_failed")
            self._rest()

    def _rest(self) -> None:
        """Until the next beat, or until a deployment begins, or a version that was still being loaded is there."""
        loading = self._warming is not None and not self._warming.done()
        rested = 0.0
        while rested < _SECONDS and not self._stopped.wait(_LOOK_SECONDS):
            rested += _LOOK_SECONDS
            if loading and self._warming is not None and self._warming.done():
                return
            try:
                with transaction(self._engine) as connection:
                    if deployment_steps.under_way(connection) - self._deployments:
                        return
            except ScorehouseError:
                continue  # the next beat tells of it

    def _beat(self) -> None:
        with transaction(self._engine) as connection:
            wanted = deployment_steps.wanted(connection)
        if fresh := wanted.deploying.keys() - self._deployments:
            for deployment_id in fresh:
                self._cache.reconsider(wanted.deploying[deployment_id].id)
            self._tell(wanted)  # that it is being loaded: one that kills this process is to be found out
        self._deployments = set(wanted.deploying)
        self._warm(wanted)
        self._tell(wanted)
        with transaction(self._engine) as connection:
            dead = [name for name in workers.owners_on(connection, host.place()) if host.is_dead(name)]
            for name, deployment_id in workers.leave(connection, dead):
                deployments.give_up(connection, deployment_id, f"worker {name} ended while it loaded it", self._owner)

    def _tell(self, wanted: Wanted) -> None:
        claimed, self._claimed = self._claimed, False
        with transaction(self._engine) as connection:
            workers.beat(
                connection,
                owner=self._owner,
                worker=self._worker,
                lanes=self._lanes,
                versions=self._cache.digests,
                refused=self._cache.refused,
                deployments={str(each): self._answer(version.id) for each, version in wanted.deploying.items()},
                release=self._release,
                claimed=claimed,
            )

    def _warm(self, wanted: Wanted) -> None:
        if self._warming is None or self._warming.done():
            self._warming = self._warmer.submit(self._cache.warm, wanted)
        done, _ = wait([self._warming], timeout=_LOAD_SECONDS)
        for future in done:
            future.result()

    def _answer(self, version_id: int) -> dict[str, str]:
        """What this child says to a deployment of the version."""
        refusal = self._cache.refusal(version_id)
        if refusal is not None:
            return {"state": "refused", "reason": refusal}
        return {"state": "warm" if self._cache.holds(version_id) else "loading"}

    def _hearing_test(self) -> None:
        """End the whole worker when work waits, the broker takes permits, and for too long no child was given one."""
        self._signs_of_deafness = self._signs_of_deafness + 1 if self._seems_deaf() else 0
        if self._signs_of_deafness < _SIGNS_OF_DEAFNESS:
            return
        _log.error("deaf", hint="work waits and the broker answers, but no permit reaches this worker; it restarts")
        os.kill(os.getppid(), signal.SIGTERM)
        if not self._stopped.wait(20):
            os.kill(os.getppid(), signal.SIGKILL)

    @cached_property
    def _publishing(self) -> Celery:
        """One for all tests: each would keep its connection."""
        return celery_app()

    def _seems_deaf(self) -> bool:
        limit = self._settings.deaf_seconds
        waiting = [
            lane
            for lane in self._lanes
            if chunks.waiting_longer_than(self._engine, lane, limit, self._cache.refused_ids)
        ]
        if not waiting:
            return False
        with transaction(self._engine) as connection:
            if workers.idle_seconds(connection, self._worker) < limit:
                return False
        try:
            for lane in waiting:
                top_up(self._publishing, lane)
        except Exception as exc:  # whatever a broker that is away, hangs or is full makes of it: nobody hears then
            _log.info("no_hearing_test", reason=repr(exc))
            return False
        return True
