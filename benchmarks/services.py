"""Services that answer single records, and the closed loops of clients that ask them: what the benchmarks of singles share.

A client asks over a connection that stays open, takes the answer, and asks for the next record. Of Scorehouse it asks with
`Prefer: wait=10`, and looks again when the API has no place to wait; its answer is in Postgres. Of the usual design it asks
and then looks every 5 ms.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.files import model_files
from benchmarks.processes import running
from benchmarks.stack import deploy, model_name, running_stack
from benchmarks.usage import of_trees
from cli import command_lines
from cli.background import free_port
from embedded.program import Program
from embedded.valkey import Valkey

POLL_SECONDS = 0.005
LOOKS = 1_000
START_SECONDS = 60.0

#: Scores one record over a connection and returns the probability of the second class, or None without an answer.
Ask = Callable[[http.client.HTTPConnection, bytes], float | None]


@dataclass(frozen=True)
class Service:
    """`pids`: the process at the head of each of its parts."""

    url: str
    ask: Ask
    pids: list[int]


@dataclass(frozen=True)
class Turn:
    """A closed loop of some clients; times in ms from asking to the answer, CPU of the service in ms for each record."""

    service: str
    clients: int
    answered: int
    unanswered: int
    per_second: float
    p50: float
    p95: float
    p99: float
    cpu: float


def turn(name: str, service: Service, records: list[bytes], clients: int, seconds: float) -> Turn:
    before, began = of_trees(service.pids).cpu, time.perf_counter()
    end = began + seconds
    with ThreadPoolExecutor(clients) as pool:
        loops = [pool.submit(_client, service, records[number::clients], end) for number in range(clients)]
        waited = [one for loop in loops for one in loop.result()]
    taken = time.perf_counter() - began
    good = [one * 1000 for one in waited if one is not None]
    p50, p95, p99 = np.percentile(good, [50, 95, 99]).tolist() if good else (0.0, 0.0, 0.0)
    cpu = 1000 * (of_trees(service.pids).cpu - before) / max(len(good), 1)
    return Turn(name, clients, len(good), len(waited) - len(good), len(good) / taken, p50, p95, p99, cpu)


def connection_to(service: Service) -> http.client.HTTPConnection:
    parts = urlsplit(service.url)
    return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)


def _client(service: Service, records: list[bytes], end: float) -> list[float | None]:
    connection = connection_to(service)
    waited: list[float | None] = []
    while time.perf_counter() < end:
        began = time.perf_counter()
        good = service.ask(connection, records[len(waited) % len(records)]) is not None
        waited.append(time.perf_counter() - began if good else None)
    connection.close()
    return waited


@contextmanager
def scorehouse(model: str) -> Iterator[Service]:
    with running_stack(None, 2) as stack:
        deploy(stack, {model})
        headers = {
            "Authorization": f"Bearer {(stack.data_dir / 'admin.token').read_text().strip()}",
            "Content-Type": "application/json",
            "Prefer": "wait=10",
        }
        start = json.dumps({"model": model_name(model)}).encode()[:-1] + b', "inputs": '

        def ask(connection: http.client.HTTPConnection, record: bytes) -> float | None:
            connection.request("POST", "/v1/jobs", start + record + b"}", headers)
            body = json.loads(connection.getresponse().read())
            for _ in range(LOOKS):
                if body.get("state") not in ("queued", "running"):
                    break
                # Half of the API's threads may wait at a time; beyond those an answer comes at once.
                connection.request("GET", f"/v1/jobs/{body['id']}?wait=10", headers=headers)
                body = json.loads(connection.getresponse().read())
            result = body.get("result")
            return None if result is None else float(result["probability"][1])

        pids = [int(pid) for pid in stack.found["pids"].values()]
        yield Service(str(stack.found["api_url"]), ask, pids)


@contextmanager
def usual_design(model: str) -> Iterator[Service]:
    artefact, _ = model_files(model)
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as name, ExitStack() as stack:
        folder = Path(name)
        valkey = Valkey(folder / "valkey")
        valkey.start()
        stack.callback(valkey.stop)
        port = free_port(0)
        module = "benchmarks.usual_design"
        commands = {
            "web": ["gunicorn", "--workers=2", "--threads=16", f"--bind=127.0.0.1:{port}", f"{module}:web()"],
            "tasks": ["celery", f"--app={module}:tasks", "worker", "--concurrency=2", "--loglevel=WARNING"],
        }
        environment = {
            **command_lines.ONE_THREAD,
            "USUAL_DESIGN_BROKER": valkey.url,
            "USUAL_DESIGN_ARTEFACT": str(artefact),
        }
        started = [
            stack.enter_context(running(part, [sys.executable, "-m", *command], environment, folder))
            for part, command in commands.items()
        ]
        service = Service(
            f"http://127.0.0.1:{port}", _ask_and_poll, [program.pid for program in started if program.pid]
        )
        wait_for(service, started, "/result/none")
        yield service


def _ask_and_poll(connection: http.client.HTTPConnection, record: bytes) -> float | None:
    submitted = post(connection, "/submit", record)
    if submitted is None:
        return None
    while True:
        connection.request("GET", f"/result/{submitted['id']}")
        found = json.loads(connection.getresponse().read())
        if found["state"] in ("SUCCESS", "FAILURE"):
            return float(found["result"]["probability"][1]) if found["state"] == "SUCCESS" else None
        time.sleep(POLL_SECONDS)


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> Any:
    """The document that a service answers, or None when it answers an error."""
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    told = answer.read()
    return json.loads(told) if answer.status < HTTPStatus.BAD_REQUEST else None


def wait_for(service: Service, programs: Sequence[Program], path: str) -> None:
    """Until the service answers at `path`, and no error of one that is not ready.

    Raises:
        RuntimeError: it does not within a minute, or a program of it has ended; with their last words.
    """
    deadline = time.monotonic() + START_SECONDS
    while not _answers(service, path):
        if time.monotonic() > deadline or any(program.poll() is not None for program in programs):
            said = "\n".join(line for program in programs for line in program.log_tail())
            raise RuntimeError(f"{service.url}{path} does not answer:\n{said}")
        time.sleep(0.2)


def _answers(service: Service, path: str) -> bool:
    with closing(connection_to(service)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status < HTTPStatus.BAD_REQUEST
        except (OSError, http.client.HTTPException):
            return False
