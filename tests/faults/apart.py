"""Processes that run apart, as in production: each by its own command, on a database that is given; no supervisor."""

from __future__ import annotations

import io
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from customers import Customers
from harness import MODEL, SETTINGS
from sqlalchemy import make_url

from api.tokens import create_token
from cli.background import SCOREHOUSE, free_port
from db.engine import create_engine
from embedded.console import Console
from embedded.program import Program
from embedded.secrets import ensure_data_dir, ensure_secrets
from scorehouse_client import Client
from settings import Settings

DEAD_BROKER = "redis://127.0.0.1:1/0"
WAIT_SECONDS = 90.0
STOP_SECONDS = 40.0
POLL_SECONDS = 0.05


class Apart:
    """Use it as a context manager, in the main thread; what is started ends with it.

    Args:
        folder: of its data; made when missing.
        owner_url: of the database's owner, whose schema is migrated already. The processes log in as `scorehouse_app`.
    """

    def __init__(self, folder: Path, owner_url: str, broker_url: str = DEAD_BROKER, **settings: str) -> None:
        self.folder = folder
        self.owner_url = owner_url
        self.api_port = free_port(0)
        self._given = settings
        self._broker_url = broker_url
        self._programs: dict[str, Program] = {}
        self._killed: list[Program] = []

    def __enter__(self) -> Apart:
        ensure_data_dir(self.folder)
        ensure_secrets(self.folder)
        self._log = (self.folder / "log").open("a")
        self._console = Console(self._log)
        self.engine = create_engine(self.owner_url, name="apart", role=None, pool_size=2)
        token = create_token(
            Settings(data_dir=self.folder), subject="tests", tenant="default", scopes=("admin",), ttl=timedelta(hours=1)
        )
        self.client = Client(f"http://127.0.0.1:{self.api_port}", token, retry_for=30)
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._programs)):
            self.stop(name)
        for program in self._killed:
            program.stop()
        self.client.close()
        self.engine.dispose()
        self._log.close()

    @property
    def environment(self) -> Mapping[str, str]:
        login = make_url(self.owner_url).set(username="scorehouse_app").render_as_string(hide_password=False)
        ours = {
            "SCOREHOUSE_DATA_DIR": str(self.folder),
            "SCOREHOUSE_DATABASE_URL": login,
            "SCOREHOUSE_BROKER_URL": self._broker_url,
            "SCOREHOUSE_API_PORT": str(self.api_port),
            "PYTHONPATH": str(Path(__file__).with_name("models")),
        }
        return {**os.environ, **SETTINGS, **ours, **self._given}

    def start(self, *words: str, name: str | None = None) -> Program:
        """`scorehouse WORDS…`, under its first word's name unless another is given."""
        name = name or words[0]
        program = Program(name, [str(SCOREHOUSE), *words], self.environment, self._console, cwd=self.folder)
        program.start()
        self._programs[name] = program
        return program

    def start_api(self) -> None:
        self.start("api")
        self.until(self._answers)

    def start_worker(self, children: int) -> None:
        """One that polls; returns when it lives, and at once when there is one already."""
        if "worker" not in self._programs:
            self.start("worker", "--poll", "--concurrency", str(children))
            self.until(lambda: len(self.query("SELECT 1 FROM worker_heartbeat")) == children)

    def stop(self, name: str) -> int | None:
        """SIGTERM, and what is left after a while is killed; the exit code."""
        program = self._programs.pop(name)
        program.send(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while program.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        code = program.poll()
        program.stop()
        return code

    def kill(self, name: str) -> None:
        """SIGKILL the main process, and nobody else; what it leaves behind is ended with the rest."""
        program = self._programs.pop(name)
        os.kill(int(program.pid or 0), signal.SIGKILL)
        self.until(lambda: program.poll() is not None)
        self._killed.append(program)

    @property
    def pids(self) -> dict[str, int | None]:
        return {name: program.pid for name, program in self._programs.items()}

    def children(self, name: str) -> list[psutil.Process]:
        return psutil.Process(self._programs[name].pid).children()

    def register(self, customers: Customers, version: str, seconds_per_row: float = 0.0) -> None:
        """Register the model, deploy it, and wait until it is live."""
        columns = {"key": "customer_id", "target": "churn"}
        self.client.register_version(
            MODEL, version, customers.artefact(seconds_per_row), customers.reference, trust=True, **columns
        )
        self.client.deploy(MODEL, version)

    def submit(self, body: bytes, **more: Any) -> str:
        return self.client.submit_file(io.BytesIO(body), MODEL, **more).id

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(statement), parameters)
            return list(result.all()) if result.returns_rows else []

    def done(self, job_id: str) -> int:
        return int(
            self.query("SELECT count(*) AS n FROM chunk WHERE job_id = :job AND state = 'done'", job=job_id)[0].n
        )

    def until(self, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
        """What `condition` returns as soon as that is true; none of the processes may end meanwhile."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"it did not come true in time; the log: {self.log[-3000:]}"
            for program in self._programs.values():
                assert program.poll() is None, f"{program.name} ended: {program.log_tail()}"
            time.sleep(POLL_SECONDS)
        return found

    @property
    def log(self) -> str:
        self._log.flush()
        return (self.folder / "log").read_text(errors="replace")

    def logged(self, event: str) -> int:
        return len(re.findall(rf'"event": ?"{event}"', self.log))

    def _answers(self) -> bool:
        with suppress(Exception):
            return bool(self.client.health())
        return False
