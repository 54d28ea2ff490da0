"""Permits: the messages that say "there is work in lane X", and nothing more.

The API publishes them after COMMIT, the kicker publishes them for work that is still claimable. A permit that is lost,
late, forged or delivered twice changes nothing: workers claim from Postgres.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from celery import Celery
from kombu.entity import Queue
from kombu.messaging import Producer

import logs
from settings import get_settings

LANES = ("interactive", "bulk")
# A lane of its own for what takes minutes and scores nothing: its workers serve no other.
TRAINING = "training"
# What a permit asks for: the task that a worker runs, and the queue that it waits in.
PERMITS = {
    "interactive": ("score.interactive", "interactive"),
    "bulk": ("score.bulk", "bulk"),
    "register": ("model.register", "audits"),
    "audit": ("audit.run", "audits"),
    "train": ("training.run", TRAINING),
    "deployment": ("deployment.run", "audits"),
}
# Besides the lanes: ticks of beat that must be quick, and periodic work that may take its time.
QUEUES = (*LANES, "ticks", "audits", TRAINING)

_log = logs.get(__name__)


def celery_app(name: str = "scorehouse", *, publish_only: bool = True) -> Celery:
    """A Celery application on the broker of the settings.

    Args:
        publish_only: give up on a broker that does not answer within a second; workers and beat wait a little longer,
            and then connect again: a connection that is half-open would keep them waiting for ever.
    """
    url = get_settings().resolved_broker_url()
    app = Celery(name, broker=url)
    wait = 1.0 if publish_only else 2.0
    if url.startswith("amqp"):
        options: dict[str, Any] = {"read_timeout": wait, "write_timeout": wait, "confirm_publish": publish_only}
    else:
        options = {
            "socket_timeout": wait,
            "socket_connect_timeout": 1.0,
            "socket_keepalive": True,
            # A worker asks for messages every second; when so long nothing is heard, it asks over another connection.
            "health_check_interval": 3,
            "retry_on_timeout": False,
            # No message has a priority: permits are alike, and the order of the work is Postgres' affair.
            "priority_steps": [0],
        }
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue="ticks",
        task_queues=[_queue(name) for name in QUEUES],
        # RabbitMQ would write each permit to its disk.
        task_default_delivery_mode="transient",
        task_create_missing_queues=False,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_timeout=1.0,
        # RabbitMQ: a worker whose broker is silent for two of these connects again. None: with `amqps`, ask for the name in
        # the URL; else any certificate that is trusted would do.
        broker_heartbeat=5,
        broker_use_ssl={"server_hostname": None} if url.startswith("amqps") else False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A broker that is full, or read-only after a failover, refuses commands; it is no reason for a worker to end.
        broker_channel_error_retry=True,
        broker_transport_options=options,
    )
    return app


def _queue(name: str) -> Queue:
    """What it says of classic queues and of lengths is for RabbitMQ, Redis does not know it.

    A permit is not worth a quorum, and of a thousand that nobody has taken the oldest is missed by nobody.
    """
    arguments = {"x-queue-type": "classic"}
    return Queue(name, max_length=1_000, queue_arguments=arguments)  # type: ignore[no-untyped-call]  # kombu has no types


def publish(app: Celery, kind: str, count: int = 1, producer: Producer | None = None) -> None:
    """Send permits of one kind now; raises whatever the transport raises when the broker does not answer."""
    task, queue = PERMITS[kind]
    for _ in range(count):
        app.send_task(task, queue=queue, ignore_result=True, retry=False, expires=60, producer=producer)


def top_up(app: Celery, kind: str, count: int = 1) -> None:
    """See to it that `count` permits of a kind wait in their queue; raises as `publish` does.

    Whoever takes a permit that waits looks at what there is after that, so one that is there already will do. And so the queue
    does not grow while nobody takes from it.
    """
    _, queue = PERMITS[kind]
    with app.producer_pool.acquire(block=True) as producer:
        publish(app, kind, max(count - _waiting(app, queue, producer), 0), producer)


def _waiting(app: Celery, queue: str, producer: Producer) -> int:
    """How many messages wait in a queue; it need not be there yet."""
    channel = producer.channel
    if producer.connection.transport.driver_type == "redis":
        # One command; what kombu does on its own takes two transactions and a new client for each.
        return int(channel.client.llen(queue))
    return int(app.amqp.queues[queue](channel).queue_declare().message_count)


class Publisher:
    """Publishes permits from a thread of its own, so that a submission never waits for the broker.

    Requests that come while one is being published share the next one. What a broker does not take is offered again until
    it does, so that work does not wait for the next kick once it is back.
    """

    # After a failure the broker is left alone this long.
    _PAUSE_SECONDS = 1.0

    def __init__(self) -> None:
        self._wanted: dict[str, int] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def want(self, kind: str, count: int = 1) -> None:
        """Ask for at least `count` permits of one of `PERMITS`; returns at once."""
        with self._changed:
            self._wanted[kind] = max(self._wanted.get(kind, 0), count)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="permits", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        try:
            app = celery_app()
        except LookupError as exc:
            _log.warning("no_broker", hint="only workers that poll find what waits", reason=str(exc))
            return
        failing = False
        while True:
            with self._changed:
                while not self._wanted:
                    self._changed.wait()
                wanted, self._wanted = self._wanted, {}
            try:
                _top_up_all(app, wanted)
            except Exception as exc:
                if not failing:
                    hint = "the broker takes no permits now; they are offered again until it does"
                    _log.warning("permits_failed", hint=hint, error=repr(exc))
                failing = True
                for kind, count in wanted.items():
                    self.want(kind, count)
                time.sleep(self._PAUSE_SECONDS)
            else:
                if failing:
                    _log.info("permits_resumed")
                failing = False


def _top_up_all(app: Celery, wanted: Mapping[str, int]) -> None:
    """Twice if need be: a connection that the network has forgotten fails once, and is made anew."""
    try:
        for kind, count in wanted.items():
            top_up(app, kind, count)
    except Exception:
        for kind, count in wanted.items():
            top_up(app, kind, count)


@lru_cache(maxsize=1)
def publisher() -> Publisher:
    """The publisher of this process; made after a fork, on first use."""
    return Publisher()
