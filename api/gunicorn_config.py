"""How gunicorn runs the API: threads, because requests wait for Postgres and for jobs; bounds on everything."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from api import stopping
from settings import get_settings

_settings = get_settings()

# Where the processes share what they count (prometheus-client reads the variable when it is imported).
_metrics = _settings.file_of_stack("metrics").resolve()
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics)

bind = f"{_settings.api_host}:{_settings.api_port}"
workers = _settings.api_workers
threads = _settings.api_threads
worker_class = "api.connections.PatientWorker"
# Of a process; when all are taken, the one that waits for longest is closed for the next that comes.
worker_connections = 800
keepalive = 15
# Of the worker's heartbeat, not of a request: an upload may take as long as it streams.
timeout = 60
graceful_timeout = 25
backlog = 512
limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 8190
# A header with an underscore is one with a hyphen to WSGI, and perhaps not to the proxy before it.
header_map = "refuse"
sendfile = False
# For a heartbeat file of gunicorn's own, which a full disk must not stop; not every system has it.
worker_tmp_dir = next((folder for folder in ("/dev/shm",) if Path(folder).is_dir()), None)  # noqa: S108 - as said above
accesslog = None
errorlog = "-"
loglevel = "warning"
proc_name = "scorehouse-api"


def on_starting(_server: Any) -> None:
    """Counts begin anew with the API, as Prometheus expects of a process that restarts."""
    shutil.rmtree(_metrics, ignore_errors=True)
    _metrics.mkdir(mode=0o700, parents=True)


def child_exit(_server: Any, worker: Any) -> None:
    from prometheus_client import multiprocess  # noqa: PLC0415 - after the variable is set

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # has no types


def post_fork(_server: Any, worker: Any) -> None:
    """A thread that cuts an upload yields to one that submits a single after a millisecond, not after five.

    And requests that wait for a job learn of SIGTERM, which would otherwise cut them off after `graceful_timeout`.
    """
    sys.setswitchinterval(0.001)
    stopping.watch(lambda: not worker.alive)
