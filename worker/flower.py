"""Flower on our Celery application: shows workers, queues and tasks, and lets nobody change them unless that is set.

    python -m worker.flower --address=127.0.0.1 --port=5555

Flower has no switch for it, so the routes that act (shut a worker down, revoke or send a task, …) are taken out. So is its
`/metrics`, which asks for no password and tells the workers and tasks to everybody; the API has metrics that do.
"""

from __future__ import annotations

import sys
from typing import Any

from celery.bin.celery import main as celery
from flower import urls
from flower.views import monitor

from settings import get_settings

# Flower keeps what it has seen in its memory: 100,000 tasks by default, which are hundreds of megabytes, and every worker that
# ever was. What was done stands in Postgres; here one looks at what is being done.
_BOUNDS = ("--max-tasks=2000", "--purge-offline-workers=3600")


def main() -> None:
    read_only = get_settings().flower_read_only
    urls.handlers[:] = [each for each in urls.handlers if not _is_open(each) and not (read_only and _acts(each))]
    sys.argv = ["celery", "--quiet", "-A", "worker.app", "flower", *_BOUNDS, *sys.argv[1:]]
    celery()


def _is_open(handler: Any) -> bool:
    return _target(handler) is monitor.Metrics


def _acts(handler: Any) -> bool:
    """Whether a route changes something: the POSTs of Flower's API do, its pages only ask for data by POST."""
    target = _target(handler)
    return target.__module__.startswith("flower.api.") and "post" in vars(target)


def _target(handler: Any) -> Any:
    return handler[1] if isinstance(handler, tuple) else handler.handler_class


if __name__ == "__main__":
    main()
