"""Waiting for jobs to end: one connection per process listens to Postgres, and wakes the requests that wait.

The notification is only a hint that arrives at once; whoever waits also looks again every second.
"""

from __future__ import annotations

import select
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg2
import psycopg2.extensions
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

import logs
from api.stopping import stopping
from db.jobs import CHANNEL

_log = logs.get(__name__)

_LOOK_AGAIN_SECONDS = 1.0
_LOOK_SOON_SECONDS = 0.05
# Well below the `graceful_timeout` of gunicorn, after which a request that still waits would get no answer.
_STOPPING_SECONDS = 10.0
_RECONNECT_SECONDS = 1.0


class End(threading.Event):
    """Set when a job is over.

    `look_seconds`: after how long to look in any case. While nobody listens yet, or again, that is soon.
    """

    def __init__(self, look_seconds: float) -> None:
        super().__init__()
        self.look_seconds = look_seconds


class Completions:
    """At most `limit` requests of this process wait at a time, so that some threads are always free for others."""

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine = engine
        self._places = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()
        self._waiting: dict[str, set[End]] = defaultdict(set)
        self._records_awaited = 0
        self._listening = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def records_are_awaited(self) -> bool:
        """Whether a request of this process waits for the records that it submitted."""
        return self._records_awaited > 0

    def close(self) -> None:
        """Listen no more; the thread ends when its connection does."""
        self._closed = True

    @contextmanager
    def expecting(self, job_id: UUID, *, own_records: bool = False) -> Iterator[End | None]:
        """Begin to listen for a job's end, before it is stored, so that no end is missed.

        `own_records`: it is of records that the request itself submits, and not of a file.

        Yields None when all places are taken: then the caller answers without waiting.
        """
        if not self._places.acquire(blocking=False):
            yield None
            return
        event = End(_LOOK_AGAIN_SECONDS if self._listening.is_set() else _LOOK_SOON_SECONDS)
        name = str(job_id)
        try:
            with self._lock:
                self._waiting[name].add(event)
                self._records_awaited += own_records
                self._start()
            yield event
        finally:
            with self._lock:
                self._waiting[name].discard(event)
                self._records_awaited -= own_records
                if not self._waiting[name]:
                    del self._waiting[name]
            self._places.release()

    def wait(self, event: End, seconds: float, is_over: Callable[[], bool]) -> bool:
        """Wait until the job of `event` is over, at most `seconds`; `is_over` looks into the database.

        When this process is to stop, at most ten seconds more: the caller answers with the job as it is.
        """
        deadline, look_seconds = time.monotonic() + seconds, event.look_seconds
        while True:
            if event.wait(min(look_seconds, max(deadline - time.monotonic(), 0))):
                return True
            look_seconds = min(2 * look_seconds, _LOOK_AGAIN_SECONDS)
            if is_over():
                return True
            if stopping():
                deadline = min(deadline, time.monotonic() + _STOPPING_SECONDS)
            if time.monotonic() >= deadline:
                return False

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._listen_for_ever, name="completions", daemon=True)
            self._thread.start()

    def _listen_for_ever(self) -> None:
        while not self._closed:
            try:
                self._listen()
            except (psycopg2.Error, SQLAlchemyError, OSError) as exc:
                self._listening.clear()
                if self._closed:
                    return
                _log.warning("listener_lost", reason=str(exc).strip())
                time.sleep(_RECONNECT_SECONDS)

    def _listen(self) -> None:
        with self._engine.connect() as pooled:
            pooled.detach()
            connection = pooled.connection.dbapi_connection
            assert isinstance(connection, psycopg2.extensions.connection)
            connection.rollback()
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            self._listening.set()
            while True:
                # The timeout makes us touch the connection, so that a dead one is noticed.
                if not select.select([connection], [], [], 30)[0]:
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT 1")
                connection.poll()
                while connection.notifies:
                    self._wake(connection.notifies.pop(0).payload)

    def _wake(self, name: str) -> None:
        with self._lock:
            for event in self._waiting.get(name, ()):
                event.set()
