"""How a worker listens to the broker: what is no message costs nothing, and a broker that comes back is found soon."""

from __future__ import annotations

from queue import Empty
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import maybe_shutdown
from kombu.transport import TRANSPORT_ALIASES, redis

import logs

_log = logs.get(__name__)

# Celery's own pauses between attempts grow to 30 s; a broker that was away for minutes would be back for as long unheard.
_LONGEST_PAUSE_SECONDS = 3.0


class Channel(redis.Channel):
    """Drops what is no JSON, which kombu would let end the worker."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu has no types
        except ValueError as exc:
            _log.warning("message_dropped", reason=f"it is no JSON: {exc}")
            raise Empty from exc


class Transport(redis.Transport):
    """Drops JSON that is no message of Celery: whatever it was to say, Postgres knows what there is to do."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            super()._deliver(message, queue)  # type: ignore[no-untyped-call]  # as above
        except (LookupError, TypeError, AttributeError, ValueError) as exc:
            _log.warning("message_dropped", queue=queue, reason=f"it is no message of Celery: {exc!r}")


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery has no types
    """Tries to connect again every few seconds, for as long as it takes."""

    def ensure_connected(self, conn: Any) -> Any:
        def tell(exc: Exception, interval: float) -> None:
            _log.warning("broker_away", reason=str(exc), next_attempt_seconds=interval)

        conn.ensure_connection(
            tell,
            None,
            interval_start=0.5,
            interval_step=0.5,
            interval_max=_LONGEST_PAUSE_SECONDS,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        return conn


def install() -> None:
    """Make `redis` in a broker URL mean our transport; kombu takes the class of a URL from nowhere else."""
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = f"{__name__}:Transport"
