"""Flooding: limits that the real processes of an API hold together, whatever dies or is away.

An API of two processes with a Postgres and a Valkey of its own, and no workers: what is open stays open.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from api.limits import KNOWN_SECONDS
from api.tokens import create_token
from cli.background import SCOREHOUSE, free_port
from db import quotas, usage
from db.engine import transaction
from db.tables import job, model, model_version
from embedded.secrets import ensure_secrets
from embedded.valkey import Valkey
from settings import Settings
from worker import sweeps

WAIT_SECONDS = 60.0
TIMEOUT_SECONDS = 30.0
LINE = b"1234567\n"


class Flooded:
    """The API of one test, and tenants of which each test takes new ones."""

    def __init__(self, engine: Engine, folder: Path, database_url: str) -> None:
        self.engine = engine
        self.valkey = Valkey(folder / "valkey")
        self.settings = Settings(data_dir=folder / "data")
        self.port = free_port(0)
        self._database_url = database_url
        self._folder = folder

    def __enter__(self) -> Flooded:
        self.valkey.start()
        ensure_secrets(self.settings.data_dir)
        environment = {
            **os.environ,
            "SCOREHOUSE_DATA_DIR": str(self.settings.data_dir),
            "SCOREHOUSE_DATABASE_URL": self._database_url,
            "SCOREHOUSE_BROKER_URL": self.valkey.url,
            "SCOREHOUSE_API_PORT": str(self.port),
            "SCOREHOUSE_API_WORKERS": "2",
            "SCOREHOUSE_CHUNK_BYTES": "65536",
        }
        with (self._folder / "api.log").open("wb") as log:
            self._process = subprocess.Popen([str(SCOREHOUSE), "api"], env=environment, stdout=log, stderr=log)
        try:
            self.until(lambda: self.get("/health/ready", token=None)[0] == HTTPStatus.OK)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.valkey.stop()

    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        return psutil.Process(self._process.pid).children()

    def token(self, tenant: str) -> str:
        life = timedelta(minutes=10)
        return create_token(self.settings, subject="tests", tenant=tenant, scopes=["admin"], ttl=life)

    def tenant(self, name: str, **limits: int | None) -> str:
        """A tenant with a model `m` and quotas; returns its token."""
        with transaction(self.engine) as connection:
            made = sa.insert(model).values(tenant=name, name="m").returning(model.c.id)
            values = {
                "model_id": connection.execute(made).scalar_one(),
                "version": "1.0.0",
                "state": "registered",
                "digest": "sha256:" + "0" * 64,
                "reference_digest": "sha256:" + "1" * 64,
                "format": "skops",
                "runtime": "sklearn",
                "size": 0,
                "trusted": False,
                "signature": {"columns": [{"name": "x", "type": "number"}], "output": {"kind": "regression"}},
                "created_by": "tests",
            }
            connection.execute(sa.insert(model_version).values(**values))
            quotas.set_limits(connection, name, limits, by="tests")
        return self.token(name)

    def counted(self, tenant: str) -> usage.Usage:
        with transaction(self.engine) as connection:
            return usage.of(connection, tenant)

    def used(self, tenant: str) -> usage.Usage:
        """What is counted, when nothing is going on; the jobs themselves must say the same."""
        with transaction(self.engine) as connection:
            counted = usage.of(connection, tenant)
            usage.recount(connection, tenant)
            again = usage.of(connection, tenant)
        assert (again.jobs_open, again.bytes_stored) == (counted.jobs_open, counted.bytes_stored)
        assert again.rows_per_day == counted.rows_per_day
        return counted

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None, kind: str = "application/json"
    ) -> tuple[int, http.client.HTTPMessage, Any]:
        """One request on a connection of its own: any of the processes may take it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            connection.request(method, path, body, headers, encode_chunked=True)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return answer.status, answer.headers, json.loads(text) if text else None

    def get(self, path: str, *, token: str | None) -> tuple[int, http.client.HTTPMessage, Any]:
        try:
            return self.call("GET", path, token=token)
        except OSError:
            return 0, http.client.HTTPMessage(), None

    def submit(self, token: str) -> tuple[int, http.client.HTTPMessage, Any]:
        body = json.dumps({"model": "m", "version": "1.0.0", "inputs": {"x": 1}})
        return self.call("POST", "/v1/jobs", body, token=token)

    def upload(self, token: str, lines: int) -> tuple[int, http.client.HTTPMessage, Any]:
        """A CSV of unknown length, in blocks."""
        whole, rest = divmod(lines, 1_000)
        blocks = itertools.chain([b"x\n"], itertools.repeat(LINE * 1_000, whole), [LINE * rest] if rest else [])
        return self.call("POST", "/v1/jobs?model=m&version=1.0.0", blocks, token=token, kind="text/csv")

    def begin_upload(self, token: str) -> socket.socket:
        """An upload that stops in its middle."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_SECONDS)
        head = (
            "POST /v1/jobs?model=m&version=1.0.0 HTTP/1.1\r\nHost: scorehouse\r\nContent-Type: text/csv\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: 10000000\r\n\r\n"
        )
        connection.sendall(head.encode() + b"x\n" + LINE * 50_000)
        return connection

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, (self._folder / "api.log").read_text()[-3000:]
            time.sleep(0.05)


@pytest.fixture
def flooded(engine: Engine, database_url: str, tmp_path: Path) -> Iterator[Flooded]:
    with Flooded(engine, tmp_path, database_url) as running:
        yield running


def at_once(number: int, ask: Callable[[], tuple[int, Any, Any]]) -> Counter[int]:
    """How often each status was answered to requests that set off together."""
    ready = threading.Barrier(number)

    def one(_: int) -> int:
        ready.wait(WAIT_SECONDS)
        return ask()[0]

    with ThreadPoolExecutor(number) as pool:
        return Counter(pool.map(one, range(number)))


def hammered(flooded: Flooded, token: str, seconds: float) -> tuple[Counter[int], float]:
    """The statuses of as many submits as four clients can send, and how long they took to the last answer."""
    began = time.monotonic()

    def client(_: int) -> Counter[int]:
        found: Counter[int] = Counter()
        while time.monotonic() < began + seconds:
            found[flooded.submit(token)[0]] += 1
        return found

    with ThreadPoolExecutor(4) as pool:
        total = sum(pool.map(client, range(4)), Counter())
    return total, time.monotonic() - began


def test_limits_are_hit_exactly_by_all_processes_together(flooded: Flooded) -> None:
    token = flooded.tenant("open", jobs_open=7)
    assert at_once(20, lambda: flooded.submit(token)) == {202: 7, 429: 13}
    assert flooded.used("open").jobs_open == 7
    token = flooded.tenant("rows", rows_per_day=10)
    assert at_once(20, lambda: flooded.submit(token)) == {202: 10, 429: 10}
    status, headers, problem = flooded.upload(token, 20_000)
    assert (status, problem["quota"], problem["limit"], problem["used"]) == (429, "rows_per_day", 10, 10)
    assert int(headers["Retry-After"]) > 0
    assert flooded.used("rows").rows_per_day == 10
    # Nobody else is held up.
    assert flooded.upload(flooded.tenant("other"), 20_000)[0] == 202


def test_uploads_that_die_with_their_process_give_back_what_they_took(flooded: Flooded) -> None:
    token = flooded.tenant("killed", rows_per_day=200_000, uploads_at_once=2)
    held = [flooded.begin_upload(token) for _ in range(2)]
    flooded.until(lambda: (now := flooded.counted("killed")).rows_per_day > 20_000 and now.uploads_at_once == 2)
    assert flooded.upload(token, 10)[0] == 429
    before = flooded.workers()
    for process in before:
        process.send_signal(signal.SIGKILL)
    flooded.until(lambda: flooded.get("/health/live", token=None)[0] == HTTPStatus.OK)
    for connection in held:
        connection.close()
    with transaction(flooded.engine) as connection:  # a minute later
        earlier = sa.func.now() - sa.text("interval '1 minute'")
        connection.execute(sa.update(job).where(job.c.state == "receiving").values(upload_lease_until=earlier))
        connection.execute(sa.text("UPDATE tenant_upload SET lease_until = now() - interval '1 second'"))
    sweeps.sweep(flooded.engine)
    left = flooded.used("killed")
    assert (left.rows_per_day, left.bytes_stored, left.jobs_open, left.uploads_at_once) == (0, 0, 0, 0)
    assert flooded.upload(token, 200_000)[0] == 202


def test_a_rate_limit_holds_without_redis_and_submits_go_on(flooded: Flooded) -> None:
    rate, burst = 2, 5
    token = flooded.tenant("fast", requests_per_second=rate, burst=burst)
    with_redis, seconds = hammered(flooded, token, 3.0)
    assert set(with_redis) == {202, 429}
    assert with_redis[202] <= burst + rate * seconds
    flooded.valkey.stop()
    without, more_seconds = hammered(flooded, token, 3.0)
    assert set(without) == {202, 429}
    assert with_redis[202] + without[202] <= burst + rate * (seconds + more_seconds + 1)
    status, headers, problem = flooded.submit(flooded.tenant("calm"))
    assert (status, problem["state"]) == (202, "queued")
    assert headers["RateLimit-Policy"] == '"requests";q=2000;w=2'
    while (refused := flooded.submit(token))[0] != 429:
        pass
    assert refused[2]["quota"] == "requests_per_second"
    assert refused[1]["Retry-After"] == "1"


def test_a_change_acts_in_all_processes_without_a_restart(flooded: Flooded) -> None:
    token = flooded.tenant("changed", jobs_open=0)
    assert at_once(8, lambda: flooded.submit(token)) == {429: 8}
    with transaction(flooded.engine) as connection:
        quotas.set_limits(connection, "changed", {"jobs_open": None}, by="tests")
    time.sleep(KNOWN_SECONDS)  # what is documented is a bound, and every process must keep to it
    assert at_once(8, lambda: flooded.submit(token)) == {202: 8}


def test_a_guesser_of_tokens_is_refused_and_probes_are_not(flooded: Flooded) -> None:
    answers = Counter(flooded.get("/v1/jobs", token="wrong")[0] for _ in range(80))
    assert set(answers) == {401, 429}
    assert answers[401] >= 30
    assert flooded.get("/health/live", token=None)[0] == HTTPStatus.OK
    assert flooded.get("/v1/jobs", token=flooded.token("default"))[0] == HTTPStatus.OK
