"""Sessions that wait for an answer which will not come are cut, so that whoever waits hears of an outage.

TCP notices a host that is gone (`_NETWORK` in `db.engine`), and the server itself keeps its statement timeout. Neither helps
against a server or a pooler that hangs while its kernel still confirms what it gets, nor against a connection that something
in between has forgotten. So one thread of the process looks after calls that have waited for SILENT_SECONDS, and asks over a
connection of its own:

    no answer in time                      the server hangs or cannot be reached: cut
    the session is not there, or is idle   its answer was lost: cut
    the session is at work                 wait; its statement timeout will end it
    no place, starting up, refused         the server speaks: wait, and ask again
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE, make_dsn

import logs

_log = logs.get(__name__)

SILENT_SECONDS = 5.0
_ANSWER_SECONDS = 3.0
_LOOK_SECONDS = 1.0
# A session that has been idle for less may have answered just now.
_IDLE_SECONDS = 3.0

_AT_WORK = """
    SELECT pg_backend_pid(), ARRAY(
        SELECT pid FROM pg_stat_activity
        WHERE pid = ANY (%s) AND (state = 'active' OR state_change > clock_timestamp() - make_interval(secs => %s))
    )
"""


class Session(psycopg2.extensions.connection):
    """A connection of the driver whose calls are looked after."""

    def __init__(self, dsn: str, *args: Any, **kwargs: Any) -> None:
        self.whole_dsn = dsn  # that of the driver lacks the password
        super().__init__(dsn, *args, **kwargs)

    def commit(self) -> None:
        with _watch.waiting(self):
            super().commit()

    def rollback(self) -> None:
        with _watch.waiting(self):
            super().rollback()


class Cursor(psycopg2.extensions.cursor):
    connection: Session

    def execute(self, *args: Any, **kwargs: Any) -> None:
        with _watch.waiting(self.connection):
            super().execute(*args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> None:
        with _watch.waiting(self.connection):
            super().executemany(*args, **kwargs)

    def fetchmany(self, *args: Any, **kwargs: Any) -> list[tuple[Any, ...]]:
        """Asks the server when the cursor has a name."""
        with _watch.waiting(self.connection):
            return super().fetchmany(*args, **kwargs)

    def close(self) -> None:
        """Tells the server when the cursor has a name."""
        with _watch.waiting(self.connection):
            super().close()

    def copy_expert(self, *args: Any, **kwargs: Any) -> None:
        with _watch.waiting(self.connection):
            super().copy_expert(*args, **kwargs)


class _Watch:
    """The calls of this process that wait, and the thread that looks after them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[Session, float] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def waiting(self, session: Session) -> Iterator[None]:
        with self._lock:
            self._since[session] = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="silence", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._since.pop(session, None)

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            overdue = self._overdue()
            for dsn in {session.whole_dsn for session in overdue}:
                self._look_after(dsn, {each: since for each, since in overdue.items() if each.whole_dsn == dsn})

    def _overdue(self) -> dict[Session, float]:
        before = time.monotonic() - SILENT_SECONDS
        with self._lock:
            return {session: since for session, since in self._since.items() if since < before}

    def _look_after(self, dsn: str, waiting: dict[Session, float]) -> None:
        pids = {session: session.info.backend_pid for session in waiting}
        try:
            at_work = _at_work(dsn, list(pids.values()))
        except TimeoutError:
            at_work = []
        except psycopg2.Error:
            return
        for session, since in waiting.items():
            if at_work is not None and pids[session] not in at_work:
                self._cut(session, since)

    def _cut(self, session: Session, since: float) -> None:
        with self._lock:  # while the call waits, nobody else closes its socket
            if self._since.get(session) != since:
                return
            with suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(session.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
        _log.warning("session_cut", waited=round(time.monotonic() - since, 1), hint="the database did not answer it")


def _at_work(dsn: str, pids: Sequence[int]) -> list[int] | None:
    """Which of the sessions are at work, or were until just now; None: a pooler hides which they are.

    Raises:
        TimeoutError: no answer.
        psycopg2.Error: an answer, but no connection.
    """
    deadline = time.monotonic() + _ANSWER_SECONDS
    # As the user who logged in: a role that was taken on does not see what the sessions do.
    asking = psycopg2.connect(make_dsn(dsn, options="", application_name="scorehouse-silence"), async_=True)
    try:
        _finish(asking, deadline)
        with asking.cursor() as cursor:
            cursor.execute(_AT_WORK, (list(pids), _IDLE_SECONDS))
            _finish(asking, deadline)
            own, at_work = cursor.fetchall()[0]
        return list(at_work) if own == asking.info.backend_pid else None
    finally:
        asking.close()


def _finish(connection: psycopg2.extensions.connection, deadline: float) -> None:
    """Wait for what was begun on an asynchronous connection."""
    while (state := connection.poll()) != POLL_OK:
        ends = [connection.fileno()]
        reading, writing = (ends if state == POLL_READ else []), (ends if state == POLL_WRITE else [])
        if not any(select.select(reading, writing, [], max(deadline - time.monotonic(), 0.0))):
            raise TimeoutError


_watch = _Watch()


def _begin_anew() -> None:
    """In a process that was forked the thread is not there, and nothing waits."""
    global _watch  # noqa: PLW0603 - one per process
    _watch = _Watch()


os.register_at_fork(after_in_child=_begin_anew)
