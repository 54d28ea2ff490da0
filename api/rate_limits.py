"""Rate limits: requests per second of each tenant, and failed authentications of each address.

A tenant's bucket is in Postgres (`db.rates`) and holds for all processes together; a process takes a block of requests
from it, a tenth of a second's worth, so that most requests cost no query. Redis has no part in it. Answers carry
`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).

Failed authentications are counted per process, each with its share of the limit: an address has no tenant, and whoever
guesses must cause no queries. A valid token is never refused for the guesses of others behind the same address.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flask import Flask, Response, g
from sqlalchemy import Engine

from api.limits import TenantLimits
from db import rates
from db.engine import transaction
from db.quotas import Quotas
from errors import OverQuota, Unavailable

# A block that was taken is good for so long; what is left of it then is lost to the tenant, not given away twice.
_BLOCK_SECONDS = 0.1
_GOOD_SECONDS = 5.0
_REMEMBERED = 10_000


@dataclass(slots=True)
class _Block:
    """What this process holds of one tenant's bucket."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    rate: int = 0
    granted: int = 0
    left: float = 0.0
    good_until: float = 0.0
    # The bucket is known to be empty until then.
    empty_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands, for the headers."""

    limits: Quotas
    remaining: int
    # Until the bucket is full again.
    reset: int


class TenantRates:
    """Admits requests of tenants; safe to share between threads."""

    def __init__(self, engine: Engine, limits: TenantLimits) -> None:
        self._engine = engine
        self._limits = limits
        self._lock = threading.Lock()
        self._blocks: dict[str, _Block] = {}

    def admit(self, tenant: str) -> Standing | None:
        """Count one request; None when the tenant has no limit.

        Raises:
            OverQuota: it has used up its requests; says when there is one again.
        """
        limits = self._limits.of(tenant)
        if limits.requests_per_second is None:
            return None
        rate, burst = limits.requests_per_second, _burst(limits)
        block = self._block(tenant)
        with block.lock:
            now = time.monotonic()
            if block.granted == 0 or now >= block.good_until or block.rate != rate:
                self._refill(tenant, block, rate, burst, now)
            if block.granted == 0:
                raise _too_fast(rate, max(block.empty_until - now, 0.0))
            block.granted -= 1
            remaining = block.granted + math.floor(block.left)
        return Standing(limits, remaining, math.ceil((burst - remaining) / rate))

    def _refill(self, tenant: str, block: _Block, rate: int, burst: int, now: float) -> None:
        if now < block.empty_until and block.rate == rate:
            block.granted = 0
            return
        wanted = min(math.ceil(rate * _BLOCK_SECONDS), burst)
        try:
            with transaction(self._engine) as connection:
                grant = rates.take(connection, tenant, wanted=wanted, rate=rate, burst=burst)
        except Unavailable:
            # Without the database nothing is served anyway, and the view says so better. A whole block, because each attempt
            # may take seconds, and the requests of the tenant wait for it one after the other.
            grant = rates.Grant(wanted, 0.0)
        block.rate, block.granted, block.left = rate, grant.number, grant.left
        block.good_until = now + _GOOD_SECONDS
        # Rounded up a little: whoever comes back on the dot must find a request there.
        wait = (1.0 - grant.left) / rate + 0.001 if rate else 1.0
        block.empty_until = now + wait if grant.number == 0 else 0.0

    def limits_of(self, tenant: str) -> Quotas:
        return self._limits.of(tenant)

    def _block(self, tenant: str) -> _Block:
        found = self._blocks.get(tenant)
        if found is None:
            with self._lock:
                if len(self._blocks) >= _REMEMBERED:
                    self._blocks.clear()
                found = self._blocks.setdefault(tenant, _Block())
        return found


class FailedAuthentications:
    """Counts guesses of tokens by address, in this process alone."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = max(per_minute, 1.0)
        self._clock = clock
        self._lock = threading.Lock()
        # Of each address: guesses left, and when that was so.
        self._left: dict[str, tuple[float, float]] = {}

    def count(self, address: str) -> None:
        """Count one.

        Raises:
            OverQuota: they were too many.
        """
        now, per_second = self._clock(), self._limit / 60.0
        with self._lock:
            left, at = self._left.get(address, (self._limit, now))
            left = min(self._limit, left + (now - at) * per_second)
            if left >= 1.0:
                self._remember(address, left - 1.0, now)
                return
        seconds = math.ceil((1.0 - left) / per_second)
        raise OverQuota(
            "too many requests without a valid token came from your address; "
            f"get a valid one and try again in {seconds} s",
            quota="failed_authentications",
            limit=int(self._limit),
            used=int(self._limit),
            retry_after=seconds,
        )

    def _remember(self, address: str, left: float, now: float) -> None:
        if len(self._left) >= _REMEMBERED:  # forget those that are as good as new
            kept = {a: (n, at) for a, (n, at) in self._left.items() if n + (now - at) * self._limit / 60 < self._limit}
            self._left = kept if len(kept) < _REMEMBERED else {}
        self._left[address] = (left, now)


def admit(rates: TenantRates, tenant: str) -> None:
    """Count the current request of a tenant; its answer says how the tenant stands.

    Raises:
        OverQuota
    """
    try:
        g.standing = rates.admit(tenant)
    except OverQuota as exc:
        g.standing = Standing(rates.limits_of(tenant), 0, exc.retry_after)
        raise


def network(address: str | None) -> str:
    """What stands for an address: of IPv6 the /64, because whoever has one has them all."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:  # a client on a socket has none
        return address or "local"
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)


def install(app: Flask) -> None:
    """Tell each answer to a tenant how it stands."""

    @app.after_request
    def tell(response: Response) -> Response:
        standing: Standing | None = g.get("standing")
        if standing is not None:
            _headers(response, standing)
        return response


def _headers(response: Response, standing: Standing) -> None:
    burst = _burst(standing.limits)
    window = max(round(burst / (standing.limits.requests_per_second or 1)), 1)
    response.headers["RateLimit-Policy"] = f'"requests";q={burst};w={window}'
    response.headers["RateLimit"] = f'"requests";r={standing.remaining};t={standing.reset}'


def _burst(limits: Quotas) -> int:
    """How many requests the bucket holds: without a limit of its own, those of a second."""
    rate = limits.requests_per_second or 0
    return min(rate if limits.burst is None else max(limits.burst, 1), max(rate * 3600, 0))


def _too_fast(rate: int, seconds: float) -> OverQuota:
    return OverQuota(
        f"over the limit of {rate:,} requests per second; send them more slowly",
        quota="requests_per_second",
        limit=rate,
        used=rate,
        retry_after=max(math.ceil(seconds), 1),
    )
