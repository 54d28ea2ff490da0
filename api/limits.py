"""The limits of each tenant as this process knows them: read again every few seconds, so that a change needs no restart."""

from __future__ import annotations

import threading
import time

from sqlalchemy import Engine

import logs
from db import quotas
from db.engine import transaction
from db.quotas import Quotas
from errors import Unavailable

_log = logs.get(__name__)

# What a change takes to act, at most.
KNOWN_SECONDS = 2.0
_REMEMBERED = 10_000


class TenantLimits:
    """A cache per process; safe to share between threads."""

    def __init__(self, engine: Engine, defaults: Quotas) -> None:
        self.defaults = defaults
        self._engine = engine
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Quotas]] = {}

    def of(self, tenant: str) -> Quotas:
        """The limits of a tenant. While the database is away, those that were known last count on."""
        until, limits = self._known.get(tenant, (0.0, self.defaults))
        if time.monotonic() < until:
            return limits
        try:
            with transaction(self._engine) as connection:
                limits = self.defaults.but(quotas.differing(connection, tenant))
        except Unavailable as exc:
            _log.warning("limits_unknown", tenant=tenant, reason=str(exc))
        with self._lock:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[tenant] = (time.monotonic() + KNOWN_SECONDS, limits)
        return limits
