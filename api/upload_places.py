"""A place for each file that is being received: a tenant has so many at once, over all processes of the API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flask import g

from api.auth import caller
from api.context import context
from db import usage
from db.engine import transaction
from errors import Unavailable

# A process that dies gives up its places when their leases are over.
_LEASE_SECONDS = 60
_RENEW_SECONDS = 10


@contextmanager
def upload_place() -> Iterator[None]:
    """Hold a place while the body of the current request is received; `api.bodies` renews it with each block.

    Raises:
        OverQuota: the tenant's are all taken.
    """
    shared, tenant = context(), caller().tenant
    with transaction(shared.engine) as connection:
        place = usage.enter(connection, tenant, shared.limits.of(tenant), lease_seconds=_LEASE_SECONDS)
    renew_at = time.monotonic() + _RENEW_SECONDS

    def renew() -> None:
        nonlocal renew_at
        if time.monotonic() < renew_at:
            return
        with transaction(shared.engine) as connection:
            usage.stay(connection, tenant, place, lease_seconds=_LEASE_SECONDS)
        renew_at = time.monotonic() + _RENEW_SECONDS

    g.on_block = renew
    try:
        yield
    finally:
        del g.on_block
        with suppress(Unavailable), transaction(shared.engine) as connection:
            usage.leave(connection, tenant, place)
