"""How a worker listens to the broker: what is no message costs nothing, and a broker that comes back is found soon.

A message is never believed. Of one that asks for work a worker takes which task it names and until when it is good, and
nothing else: what Celery would do with arguments, time limits, callbacks or an ETA that somebody wrote into it, is not
for whoever may write to the broker to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from queue import Empty
from typing import Any
from uuid import UUID

from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import maybe_shutdown
from kombu.transport import TRANSPORT_ALIASES, pyamqp, redis

import logs
from permits import QUEUES

_log = logs.get(__name__)

# Celery's own pauses between attempts grow to 30 s; a broker that was away for minutes would be back for as long unheard.
_LONGEST_PAUSE_SECONDS = 3.0
# No task takes an argument.
_EMPTY = "[[], {}, {}]"
# What `as_permit` raises of a message that is none.
_NO_PERMIT = (LookupError, TypeError, AttributeError, ValueError)


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
            permit = as_permit(message) if queue in QUEUES else message
            if queue in QUEUES and is_expired(permit):
                return  # Celery would take a millisecond for each, and thousands may have piled up
            super()._deliver(permit, queue)  # type: ignore[no-untyped-call]  # as above
        except _NO_PERMIT as exc:
            _tell_dropped(queue, exc)


class AmqpChannel(pyamqp.Channel):
    """The same for RabbitMQ: of what comes from our queues a consumer sees what we take from it, before kombu looks at it."""

    def basic_consume(self, queue: str, *args: Any, callback: Callable[[Any], None], **options: Any) -> Any:
        if queue in QUEUES:
            callback = partial(self._deliver, callback, queue)
        return super().basic_consume(queue, *args, callback=callback, **options)

    def _deliver(self, callback: Callable[[Any], None], queue: str, message: Any) -> None:
        sent = message.properties
        try:
            permit = as_permit(
                {
                    "headers": sent.get("application_headers"),
                    "content-type": sent.get("content_type"),
                    "properties": {"delivery_info": message.delivery_info, "delivery_tag": message.delivery_tag},
                }
            )
            expired = is_expired(permit)
        except _NO_PERMIT as exc:
            _tell_dropped(queue, exc)
            expired = True
        if expired:
            self.basic_ack(message.delivery_tag)
            return
        message.body = permit["body"]
        message.properties = {
            "application_headers": permit["headers"],
            "content_type": permit["content-type"],
            "content_encoding": permit["content-encoding"],
            "correlation_id": permit["headers"]["id"],
        }
        message.delivery_info = {**permit["properties"]["delivery_info"], "delivery_tag": message.delivery_tag}
        callback(message)


class AmqpConnection(pyamqp.Connection):
    Channel = AmqpChannel


class AmqpTransport(pyamqp.Transport):
    Connection = AmqpConnection


class AmqpsTransport(pyamqp.SSLTransport):
    Connection = AmqpConnection


def _tell_dropped(queue: str, exc: Exception) -> None:
    _log.warning("message_dropped", queue=queue, reason=f"it is no message of Celery: {exc!r}")


def as_permit(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with only what is taken from it: the task's name, its id, and when it expires.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: it is no message of ours.
    """
    headers, properties = message["headers"], message["properties"]
    if message["content-type"] != "application/json":
        raise ValueError(f"its content is {message['content-type']!r}, not JSON")
    if not isinstance(headers["task"], str):
        raise TypeError("its task has no name")
    task_id, expires = str(UUID(headers["id"])), headers.get("expires")
    if expires is not None:
        expires = datetime.fromisoformat(expires).isoformat()
    delivery = {"exchange": "", "routing_key": str(properties["delivery_info"]["routing_key"]), "priority": 0}
    return {
        "body": _EMPTY,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": headers["task"],
            "id": task_id,
            "root_id": task_id,
            "expires": expires,
            "argsrepr": "()",
            "kwargsrepr": "{}",
            "ignore_result": True,
        },
        "properties": {
            "delivery_tag": str(properties["delivery_tag"]),
            "delivery_info": delivery,
            "delivery_mode": 2,
            "correlation_id": task_id,
        },
    }


def is_expired(permit: Mapping[str, Any]) -> bool:
    """Whether its time is over; one without a time zone, which nobody of us writes, is taken as UTC."""
    expires = permit["headers"]["expires"]
    if expires is None:
        return False
    moment = datetime.fromisoformat(expires)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) < datetime.now(UTC)


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
    """Make `redis` and `amqp` in a broker URL mean our transports; kombu takes the class of a URL from nowhere else."""
    ours = {"redis": "Transport", "rediss": "Transport", "amqp": "AmqpTransport", "amqps": "AmqpsTransport"}
    TRANSPORT_ALIASES.update({scheme: f"{__name__}:{name}" for scheme, name in ours.items()})
