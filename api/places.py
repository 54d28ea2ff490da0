"""Places for requests that keep a thread for as long as their client likes: large bodies that arrive, results that are read.

They are few, and one tenant has only some of them, so that whatever the slow clients of a tenant do, there are threads for
everybody else.
"""

from __future__ import annotations

import threading
from collections import Counter

from flask import Flask, Request, g, request

from api.arrival import SHORT_BODY_BYTES
from api.auth import caller
from api.pace import PacedSocket
from errors import Busy, Unavailable


class Place:
    """Taken until it is given back, which may be said more than once."""

    def __init__(self, places: Places, tenant: str) -> None:
        self._places: Places | None = places
        self._tenant = tenant

    def give_back(self) -> None:
        places, self._places = self._places, None
        if places is not None:
            places._give_back(self._tenant)


class Places:
    """Those of one process.

    Args:
        total: how many there are.
        per_tenant: how many of them one tenant may have at a time.
    """

    def __init__(self, total: int, per_tenant: int) -> None:
        self._free = total
        self._per_tenant = per_tenant
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, threads: int) -> Places:
        """An eighth of the threads, three quarters of it for one tenant. Requests that wait for jobs may have half."""
        total = max(threads // 8, 1)
        return cls(total, max(total * 3 // 4, 1))

    def take(self, tenant: str) -> Place:
        """A place for a tenant's request.

        Raises:
            Busy: the tenant has all it may have.
            Unavailable: there is none left.
        """
        with self._lock:
            if self._taken[tenant] >= self._per_tenant:
                raise Busy(
                    f"{self._taken[tenant]} uploads and downloads of yours are under way here, as many as one tenant "
                    "may have at a time; try again when one of them has ended",
                    retry_after=1,
                )
            if self._free == 0:
                raise Unavailable("as many uploads and downloads as possible are under way here; try again shortly")
            self._free -= 1
            self._taken[tenant] += 1
        return Place(self, tenant)

    def _give_back(self, tenant: str) -> None:
        with self._lock:
            self._free += 1
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]


def install(app: Flask, places: Places) -> None:
    """Admit requests with bodies that are yet to come. Stands after authentication."""

    @app.before_request
    def admit() -> None:
        if hasattr(g, "caller") and _streams(request):
            g.place = take(places)

    @app.teardown_request
    def give_back(_error: BaseException | None) -> None:
        leave()


def take(places: Places) -> Place:
    """A place for the current request, which may be slow from now on."""
    place = places.take(caller().tenant)
    connection = request.environ.get("gunicorn.socket")
    if isinstance(connection, PacedSocket):
        connection.admitted = True
    return place


def leave() -> None:
    """The body of the current request is there."""
    place: Place | None = g.pop("place", None)
    if place is not None:
        place.give_back()


def _streams(request: Request) -> bool:
    """Whether the body is still on its way; short ones were awaited before there was a thread."""
    if request.content_length is None:
        return "Transfer-Encoding" in request.headers
    return request.content_length > SHORT_BODY_BYTES or ("Expect" in request.headers and request.content_length > 0)
