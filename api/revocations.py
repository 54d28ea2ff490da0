"""Which tokens are revoked, as this process knows it: never older than some seconds, and without a query per request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from sqlalchemy import Engine

from api.tokens import Caller
from db import tokens
from db.engine import transaction
from errors import Unauthorized, Unavailable

#: After so many seconds one request asks the database again; the others go on with what is known.
REFRESH_SECONDS = 2.0
#: Nothing older counts: a revocation is heeded by every process after at most so many seconds.
LONGEST_SECONDS = 5.0
_NEVER = float("-inf")


class Revocations:
    """Shared by the threads of a process. Nothing is asked before the first request, which comes after the fork."""

    def __init__(
        self, engine: Engine, kids: Callable[[], Collection[str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`kids` says which own keys there are: what was made with the tokens of another one ended with that key."""
        self._engine, self._kids, self._clock = engine, kids, clock
        self._revoked: frozenset[str] = frozenset()
        self._read_at = self._failed_at = _NEVER
        self._turn = threading.Lock()

    def check(self, caller: Caller, *, without_database: bool = False) -> None:
        """Let a token pass that is not revoked.

        Args:
            without_database: whether what was known last is enough while the database is away.

        Raises:
            Unauthorized: it is revoked.
            Unavailable: the database must be asked, and does not answer.
        """
        try:
            self._refresh()
        except Unavailable:
            if not without_database:
                raise
        if caller.jti in self._revoked:
            raise Unauthorized("the token was revoked; get a new one from whoever runs this installation")

    def changed(self) -> None:
        """This process has just revoked something: the next request asks the database."""
        self._read_at = _NEVER

    def _refresh(self) -> None:
        age = self._clock() - self._read_at
        if age < REFRESH_SECONDS or not self._turn.acquire(blocking=age >= LONGEST_SECONDS):
            return
        try:
            now = self._clock()
            if now - self._read_at < REFRESH_SECONDS:  # another one asked while we waited
                return
            if now - self._failed_at >= 1.0:  # or they would wait for a dead server one after the other
                self._ask(now)
            elif now - self._read_at >= LONGEST_SECONDS:
                raise Unavailable("the database does not answer, so revoked tokens are not known; try again shortly")
        finally:
            self._turn.release()

    def _ask(self, now: float) -> None:
        try:
            with transaction(self._engine) as connection:
                self._revoked = tokens.revoked(connection, self._kids())
        except Unavailable:
            self._failed_at = self._clock()
            if now - self._read_at >= LONGEST_SECONDS:
                raise
        else:
            self._read_at = now  # when it was asked, not when it answered
