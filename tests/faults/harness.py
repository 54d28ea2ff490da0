"""A stack whose every process may be harmed: `scorehouse up` on a Postgres and a Valkey that the harness holds itself.

The supervisor of `up` restarts what dies of the API, the workers and beat. The servers are the harness' own children, so
that they can be away for as long as a fault wants. Only processes that descend from these are ever signalled, by pid.
The stack reaches both servers through proxies, so that the network between can fail too; the harness itself looks directly.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest
import redis
import sqlalchemy as sa
import urllib3
from customers import Customers
from proxy import HOST, Proxy
from sqlalchemy import Engine
from verdict import install_witness

from cli import command_lines
from cli.background import BackgroundStack, free_port
from db.engine import create_engine
from embedded.console import Console
from embedded.postgres import APP_USER, DATABASE, SOCKET, Postgres
from embedded.program import Program
from embedded.valkey import Valkey
from scorehouse_client import Client
from settings import Settings

# See conftest.py.
ROWS = int(os.environ.get("FAULT_ROWS", "120000"))
PACE = float(os.environ.get("FAULT_PACE", "4e-5"))
SECONDS = float(os.environ.get("FAULT_SECONDS", "5"))

MODEL = "marked"
VERSION = "1.0.0"
LEASE_SECONDS = 4
POISON_ATTEMPTS = 3
SETTINGS = {
    "SCOREHOUSE_LEASE_SECONDS": str(LEASE_SECONDS),
    "SCOREHOUSE_CHUNK_TIME_LIMIT": "2.0",
    "SCOREHOUSE_KICK_SECONDS": "0.5",
    "SCOREHOUSE_CHUNK_BYTES": "65536",
    "SCOREHOUSE_POISON_ATTEMPTS": str(POISON_ATTEMPTS),
    "SCOREHOUSE_DEAF_SECONDS": "20",
    "SCOREHOUSE_WORKER_MEMORY_MIB": "2048",
}
WORKERS = ("worker-bulk", "worker-interactive")
POLL_SECONDS = 0.02
WAIT_SECONDS = 60.0


class Harness:
    """Use it as a context manager, in the main thread.

    Args:
        postgres: another one than an ordinary server in `folder`.
        settings: more of them, or others than `SETTINGS`.
    """

    def __init__(
        self,
        folder: Path,
        customers: Customers,
        seconds_per_row: float,
        postgres: Postgres | None = None,
        **settings: str,
    ) -> None:
        self.customers = customers
        self.random = random.Random(20130401)  # the same kills at every run, as far as the clock allows
        self.postgres = postgres or Postgres(folder / "postgres", durable=False)
        self.valkey = Valkey(folder / "valkey")
        self.to_postgres = Proxy(self._postgres_socket)
        self.to_valkey = Proxy(self._valkey_socket)
        self.stack = BackgroundStack(folder / "data")
        self.engine: Engine
        self.client: Client
        self.token: str
        self._opened = ExitStack()
        self._seconds_per_row = seconds_per_row
        self._settings = settings
        self.trap = folder / "trap"  # a forged pickle makes this file when it is loaded
        self.models = str(Path(__file__).with_name("models"))
        self._extra_log = folder / "extra.log"

    def __enter__(self) -> Harness:
        try:
            self._opened.callback(self.postgres.discard)
            self.postgres.start()
            self._opened.enter_context(self.valkey)
            self._opened.enter_context(self.to_postgres)
            self._opened.enter_context(self.to_valkey)
            self._opened.callback(self.stack.stop)
            with pytest.MonkeyPatch.context() as environment:
                for name, value in self.environment().items():
                    environment.setenv(name, value)
                self.stack.start(2, free_port(0), free_port(0))
            self.engine = create_engine(self.postgres.url, name="faults", role=None)
            install_witness(self.engine)
            self.token = (self.stack.data_dir / "admin.token").read_text().strip()
            self.client = Client(str(self.stack.found["api_url"]), self.token, retry_for=30)
            self.register(VERSION, self._seconds_per_row)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def register(self, version: str, seconds_per_row: float) -> None:
        """Register the model at some pace and make it production."""
        artefact = self.customers.artefact(seconds_per_row)
        columns = {"key": "customer_id", "target": "churn"}
        self.client.register_version(MODEL, version, artefact, self.customers.reference, trust=True, **columns)
        self.client.deploy(MODEL, version)

    def submit(self, body: bytes, **more: Any) -> str:
        """Upload a CSV file; returns the job's id, when the API has answered 202."""
        return self.client.submit_file(io.BytesIO(body), MODEL, **more).id

    # what the stack is made of

    @property
    def pids(self) -> Mapping[str, int]:
        """The main process of each part of the stack, as the supervisor knows it now."""
        return {name: int(pid) for name, pid in self.stack.found["pids"].items()}

    def children(self, *names: str) -> list[psutil.Process]:
        """The worker children that score, of both lanes unless one is named."""
        found = []
        for name in names or WORKERS:
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(self.pids[name]).children()
        return found

    def kill_a_child(self) -> None:
        if children := self.children("worker-bulk"):
            with suppress(psutil.NoSuchProcess):
                self.random.choice(children).send_signal(signal.SIGKILL)

    def signal_main(self, name: str, number: signal.Signals) -> None:
        """Signal a main process; its children are not told."""
        psutil.Process(self.pids[name]).send_signal(number)

    def restart_workers(self) -> None:
        """SIGTERM the main process of each lane, and wait until others have taken their places."""
        before = dict(self.pids)
        for name in WORKERS:
            self.signal_main(name, signal.SIGTERM)
        self.until(lambda: all(self.pids[name] != before[name] and self.children(name) for name in WORKERS))

    def in_a_transaction(self, pid: int, states: tuple[str, ...] = ("active", "idle in transaction")) -> bool:
        """Whether a bulk child, which is stopped, is in the middle of a finish."""
        query = """
            SELECT 1 FROM pg_stat_activity
            WHERE application_name = :name AND state = ANY (:states) AND query ~ '(UPDATE (job|chunk)|COPY)'
        """
        return bool(self.query(query, name=f"worker bulk {pid}", states=list(states)))

    def end_a_session(self) -> None:
        """Terminate a session of the API or of a worker child."""
        query = "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^(worker|scorehouse-api)' ORDER BY pid"
        if pids := [row.pid for row in self.query(query)]:
            self.query("SELECT pg_terminate_backend(:pid)", pid=self.random.choice(pids))

    @contextmanager
    def frozen_in_a_transaction(self) -> Iterator[psutil.Process]:
        """A bulk child that is stopped while it holds locks, until the block ends."""
        child = self.until(self._freeze)
        try:
            yield child
        finally:
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGCONT)

    @contextmanager
    def extra_worker(self, name: str = "worker-extra", **settings: str) -> Iterator[Program]:
        """One more bulk child, with settings of its own."""
        stack = Settings(data_dir=self.stack.data_dir).running_stack()
        environment = {
            **os.environ,
            **self.environment(),
            "SCOREHOUSE_DATA_DIR": str(self.stack.data_dir),
            "SCOREHOUSE_DATABASE_URL": str(stack["database_url"]),
            **command_lines.worker_environment(["bulk"]),
            **settings,
        }
        with self._extra_log.open("a") as log:
            argv = command_lines.worker(["bulk"], 1, name)
            program = Program(name, argv, environment, Console(log), cwd=self.stack.data_dir)
            program.start()
            try:
                self.until(lambda: self._beats(program.pid))
                yield program
            finally:
                program.stop()

    @contextmanager
    def another_beat(self, name: str) -> Iterator[Path]:
        """A beat beside that of the stack, with a schedule of its own, which is yielded and stays when the beat has ended."""
        environment = {**os.environ, **self.environment(), "SCOREHOUSE_DATA_DIR": str(self.stack.data_dir)}
        schedule = self.stack.data_dir / f"{name}-schedule"
        with (self.stack.data_dir / f"{name}-beat.log").open("a") as log:
            program = Program("beat", command_lines.beat(schedule), environment, Console(log), cwd=self.stack.data_dir)
            program.start()
            try:
                yield schedule
            finally:
                program.send(signal.SIGTERM)
                deadline = time.monotonic() + 10
                while program.poll() is None and time.monotonic() < deadline:
                    time.sleep(POLL_SECONDS)
                program.stop()

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """A main process that is stopped in its tracks until the block ends."""
        self.signal_main(name, signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal_main(name, signal.SIGCONT)

    def events(self, name: str) -> int:
        """How often an event was logged by any process of the stack so far."""
        logs = [self.stack.log_file, self._extra_log]
        text = "".join(log.read_text(errors="replace") for log in logs if log.exists())
        return text.count(json.dumps(name))

    def beats_since(self, pid: int, seconds: float) -> bool:
        """Whether a child has told within the last seconds that it lives."""
        query = """
            SELECT 1 FROM worker_heartbeat WHERE owner LIKE :owner AND seen_at > now() - make_interval(secs => :seconds)
        """
        return bool(self.query(query, owner=f"%:{pid}/%", seconds=seconds))

    def _beats(self, parent: int | None) -> bool:
        return any(self.beats_since(child.pid, 60) for child in psutil.Process(parent).children())

    def _freeze(self) -> psutil.Process | None:
        for child in self.children("worker-bulk"):
            child.send_signal(signal.SIGSTOP)
            if self.in_a_transaction(child.pid, ("idle in transaction",)):
                return child
            child.send_signal(signal.SIGCONT)
        return None

    # clients

    def upload_and_leave(self, body: bytes, announced: int) -> None:
        """Send the first part of an upload, and close the connection when some of it is stored."""
        parts = urlsplit(str(self.stack.found["api_url"]))
        head = (
            f"POST /v1/jobs?model={MODEL} HTTP/1.1\r\nHost: scorehouse\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: text/csv\r\nContent-Length: {announced}\r\n\r\n"
        )
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30) as connection:
            connection.sendall(head.encode() + body)
            self.until(lambda: self.query("SELECT 1 FROM job WHERE state = 'receiving'"))

    def ask(self, method: str, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        """Send one request, over a connection of its own, and do not repeat it whatever the answer is."""
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        with urllib3.PoolManager() as pool:
            url = f"{self.stack.found['api_url']}{path}"
            return pool.request(method, url, headers=headers, retries=False, timeout=90, **more)

    def submit_one(self) -> urllib3.BaseHTTPResponse:
        """Submit a record by one request, and return the answer whatever it is."""
        return self.ask("POST", "/v1/jobs", json={"model": MODEL, "inputs": self.customers.record(1)})

    # the broker

    def broker(self) -> redis.Redis[bytes]:
        return redis.Redis(unix_socket_path=str(self._valkey_socket()), socket_timeout=5)

    def kill_valkey(self) -> None:
        self.valkey.send(signal.SIGKILL)
        self.valkey.stop()

    # waiting and looking

    def until(self, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
        """What `condition` returns as soon as that is true."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not come true in time"
            self.stack.check()
            time.sleep(POLL_SECONDS)
        return found

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(statement), parameters)
            return list(result.all()) if result.returns_rows else []

    def chunks(self, job_id: str, state: str) -> list[Any]:
        return self.query("SELECT * FROM chunk WHERE job_id = :job AND state = :state", job=job_id, state=state)

    def done(self, job_id: str) -> int:
        return len(self.chunks(job_id, "done"))

    def is_over(self, job_id: str) -> bool:
        return bool(self.query("SELECT 1 FROM job WHERE id = :job AND finished_at IS NOT NULL", job=job_id))

    def environment(self) -> dict[str, str]:
        # In clear text, so that the proxy sees which process a connection is of.
        plain = "sslmode=disable&gssencmode=disable"
        urls = {
            "SCOREHOUSE_DATABASE_URL": f"postgresql://{APP_USER}@{HOST}:{self.to_postgres.port}/{DATABASE}?{plain}",
            "SCOREHOUSE_DATABASE_OWNER_URL": self.postgres.url,
            "SCOREHOUSE_BROKER_URL": f"redis://{HOST}:{self.to_valkey.port}/0",
        }
        return {**SETTINGS, **urls, "PYTHONPATH": self.models, **self._settings}

    def _postgres_socket(self) -> Path:
        return Path(parse_qs(urlsplit(self.postgres.url).query)["host"][0]) / SOCKET

    def _valkey_socket(self) -> Path:
        return Path(self.valkey.url.removeprefix("redis+socket://"))
