"""The command line and environment of each process, the same under `scorehouse up` and alone in production."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from settings import Settings

# The lane whose workers serve no other (`permits.TRAINING`; Celery takes time to import), and what a child of it may keep.
TRAINING = "training"
_TRAINING_KIB = 1024 * 1024
_OPERATORS_OWN = ("token", "database_owner_url")
# A worker child is one core's worth of work: linear algebra that starts a thread per core would only fight its siblings.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def api() -> list[str]:
    return [sys.executable, "-m", "gunicorn", "--config", "python:api.gunicorn_config", "api.app:create_app()"]


def worker(lanes: Sequence[str], concurrency: int, name: str) -> list[str]:
    """A Celery worker for these lanes.

    Args:
        name: of the node, unique among the workers of this host.
    """
    argv = ["worker", "-Q", ",".join(queues(lanes)), "--concurrency", str(concurrency), "-n", f"{name}@%h"]
    if list(lanes) == [TRAINING]:  # what a large fit took is given back to the machine
        argv += ["--max-memory-per-child", str(_TRAINING_KIB)]
    # Workers share nothing but Postgres, so they need not find each other; looking costs a second at every start.
    return [*_celery("worker.tasks"), *argv, "--without-mingle", "--without-gossip", "--loglevel", "WARNING"]


def polling_worker(lanes: Sequence[str], concurrency: int) -> list[str]:
    """A worker for these lanes that asks Postgres for its work, and no broker."""
    return [
        *(sys.executable, "-m", "worker.polling"),
        *("--queues", ",".join(queues(lanes)), "--concurrency", str(concurrency)),
    ]


def polling_environment(lanes: Sequence[str]) -> dict[str, str]:
    """With no broker to reach, not even by mistake."""
    return {**worker_environment(lanes), "SCOREHOUSE_BROKER_URL": "memory://"}


def worker_environment(lanes: Sequence[str]) -> dict[str, str]:
    return {"SCOREHOUSE_LANES": ",".join(lanes), **ONE_THREAD}


def queues(lanes: Sequence[str]) -> list[str]:
    """The lanes themselves and the ticks of beat; audits go where there is time for them. Trainings keep to themselves."""
    if list(lanes) == [TRAINING]:
        return [TRAINING]
    return [*lanes, "ticks", *(["audits"] if "bulk" in lanes else [])]


def beat(schedule: Path) -> list[str]:
    """Celery beat, without a pid file: one that a SIGKILL leaves behind would keep the next beat from starting."""
    return [*_celery("worker.app"), "beat", "--schedule", str(schedule), "--loglevel", "WARNING"]


def flower(host: str, port: int) -> list[str]:
    """Workers send events unasked; asking them all the time is a command, which they refuse and log."""
    return [sys.executable, "-m", "worker.flower", f"--address={host}", f"--port={port}", "--enable_events=False"]


def flower_environment(password: str) -> dict[str, str]:
    """The password travels in the environment, because everybody on the machine can read command lines."""
    return {"FLOWER_BASIC_AUTH": f"admin:{password}"}


def settings_environment(settings: Settings) -> dict[str, str]:
    """Our environment with every setting that was set, wherever it was: a child needs neither our flags nor our .env.

    Without what is the operator's: a token of clients, and the owner of the tables.
    """
    given = settings.model_fields_set - set(_OPERATORS_OWN)
    chosen = settings.model_dump(mode="json", include=given, exclude_none=True)
    secrets = {name: value.get_secret_value() for name, value in settings if isinstance(value, SecretStr)}
    variables = {
        f"SCOREHOUSE_{name.upper()}": _as_text(secrets.get(name, value))  # JSON shows a secret as asterisks
        for name, value in chosen.items()
    }
    own = {f"SCOREHOUSE_{name.upper()}" for name in _OPERATORS_OWN}
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    return {**inherited, **variables, "PYTHONUNBUFFERED": "1"}


def _celery(module: str) -> list[str]:
    """The application with its tasks, or without: to import them takes seconds and 200 MB, and beat only names them."""
    return [sys.executable, "-m", "celery", "--quiet", "-A", module]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
