"""The Celery application of workers, beat and Flower: settings, schedule, and what a worker child does when it starts.

Its tasks are in `worker.tasks`, which imports all that scores: `celery -A worker.tasks worker`.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

from celery.signals import setup_logging, worker_before_create_process, worker_process_init, worker_process_shutdown

import logs
from permits import LANES, TRAINING, celery_app
from settings import get_settings
from worker import broker, control

if TYPE_CHECKING:
    from sqlalchemy import Engine

settings = get_settings()
broker.install()
control.install(read_only=settings.flower_read_only)

app = celery_app(publish_only=False)
app.conf.update(
    worker_consumer="worker.broker:Consumer",
    worker_max_tasks_per_child=settings.worker_tasks_per_child,
    # Only ticks: what a tick finds to do stands in Postgres. Ticks that nobody took in time are dropped, not piled up.
    beat_schedule={
        "kick": {"task": "tick.kick", "schedule": settings.kick_seconds, "options": {"expires": 5, "queue": "ticks"}},
        "rescue": {
            "task": "tick.rescue",
            "schedule": settings.kick_seconds,
            "options": {"expires": 5, "queue": "ticks"},
        },
        "audits": {"task": "tick.audits", "schedule": 60.0, "options": {"expires": 60, "queue": "ticks"}},
        "trainings": {"task": "tick.trainings", "schedule": 60.0, "options": {"expires": 60, "queue": "ticks"}},
        "roll-up": {"task": "tick.roll_up", "schedule": 15.0, "options": {"expires": 15, "queue": "audits"}},
        "sweep": {"task": "tick.sweep", "schedule": 60.0, "options": {"expires": 60, "queue": "audits"}},
        "housekeeping": {"task": "tick.housekeeping", "schedule": 3600.0, "options": {"queue": "audits"}},
    },
    beat_max_loop_interval=1.0,
    # Beat keeps one connection. It is the second try that makes another when RabbitMQ has closed it.
    task_publish_retry=True,
    task_publish_retry_policy={"max_retries": 1, "interval_start": 0.0},
)


@setup_logging.connect
def _configure_logs(**_: Any) -> None:
    logs.configure(settings)


@worker_before_create_process.connect
def _share_memory(**_: Any) -> None:
    """Keep the collector of a child from all that it has of its parent: it writes to each object that it visits, and a page
    that is written to is shared no more: 48 MiB in each child, sooner or later.
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


@worker_process_init.connect
def _start_child(**_: Any) -> None:
    start()


@worker_process_shutdown.connect
def _stop_child(**_: Any) -> None:
    stop()


def start(*, polls: bool = False) -> Engine:
    """Make all that holds a connection, a thread or a model, in the child itself; returns its database.

    Args:
        polls: no broker brings it permits, nor takes any of it.
    """
    from worker import child, trainer  # noqa: PLC0415 - beat and the parent never load a model

    lanes = tuple(os.environ.get("SCOREHOUSE_LANES", ",".join(LANES)).split(","))
    if lanes == (TRAINING,):
        return trainer.start(settings).engine
    return child.start(settings, lanes, polls=polls).engine


def stop() -> None:
    from worker import child, trainer  # noqa: PLC0415 - as above

    child.stop()
    trainer.stop()
