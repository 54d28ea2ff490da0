"""Single records, against the usual design (Flask, a Celery task per record, results in Redis, polling), by turns in one run.

    python -m benchmarks.singles_against --seconds 5 --repeats 5 --clients 1 8 32

Both have the same model, two scoring processes and a broker of their own, and are asked by the same clients: closed loops over
connections that stay open. Of Scorehouse a client asks
with `Prefer: wait=10`, and looks again when the API has no place to wait; its answer is in Postgres. Of the usual design it asks
and then looks every 5 ms. Writes benchmarks/reports/singles_against.json and .md, and exits 1 when an answer is missing
or a mark is missed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from rich.progress import Progress

from benchmarks.bulk import REPORTS
from benchmarks.files import MODELS, model_files
from benchmarks.singles import records_of_customers
from benchmarks.stack import deploy, model_name, running_stack
from benchmarks.usage import of_trees
from cli import command_lines
from cli.background import BackgroundStack, free_port
from embedded.console import Console
from embedded.program import Program
from embedded.valkey import Valkey

POLL_SECONDS = 0.005
LOOKS = 1_000
WARM_SECONDS = 2.0
START_SECONDS = 60.0
# The marks: requests per second at the most clients, median wait at one.
TIMES_AS_MANY, AS_QUICK = 10.0, 1.0
SERVICES = ("Scorehouse", "usual design")

#: Scores one record over a connection and says whether there was an answer.
Ask = Callable[[http.client.HTTPConnection, bytes], bool]


@dataclass(frozen=True)
class Service:
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


def main() -> int:
    given = _arguments()
    records = [json.dumps(record).encode() for record in records_of_customers()]
    with ExitStack() as stack, Progress(disable=not sys.stderr.isatty()) as progress:
        services = {
            "Scorehouse": stack.enter_context(_scorehouse(given.model)),
            "usual design": stack.enter_context(_usual_design(given.model)),
        }
        for service in services.values():
            _turn("warm", service, records, 2, WARM_SECONDS)
        turns = []
        task = progress.add_task("asking", total=given.repeats * len(given.clients) * len(services))
        for repeat in range(given.repeats):
            for clients in given.clients:
                order = SERVICES if repeat % 2 == 0 else SERVICES[::-1]
                for name in order:
                    turns.append(_turn(name, services[name], records, clients, given.seconds))
                    progress.advance(task)
    return _write(turns, given)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="clients at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each service with each number of clients")
    parser.add_argument("--model", choices=MODELS, default="histgb", help="what scores")
    return parser.parse_args()


def _turn(name: str, service: Service, records: list[bytes], clients: int, seconds: float) -> Turn:
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


def _client(service: Service, records: list[bytes], end: float) -> list[float | None]:
    parts = urlsplit(service.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    waited: list[float | None] = []
    while time.perf_counter() < end:
        began = time.perf_counter()
        good = service.ask(connection, records[len(waited) % len(records)])
        waited.append(time.perf_counter() - began if good else None)
    connection.close()
    return waited


@contextmanager
def _scorehouse(model: str) -> Iterator[Service]:
    with running_stack(None, 2) as stack:
        deploy(stack, {model})
        headers = {
            "Authorization": f"Bearer {(stack.data_dir / 'admin.token').read_text().strip()}",
            "Content-Type": "application/json",
            "Prefer": "wait=10",
        }
        start = json.dumps({"model": model_name(model)}).encode()[:-1] + b', "inputs": '

        def ask(connection: http.client.HTTPConnection, record: bytes) -> bool:
            connection.request("POST", "/v1/jobs", start + record + b"}", headers)
            body = json.loads(connection.getresponse().read())
            for _ in range(LOOKS):
                if body.get("state") not in ("queued", "running"):
                    break
                # Half of the API's threads may wait at a time; beyond those an answer comes at once.
                connection.request("GET", f"/v1/jobs/{body['id']}?wait=10", headers=headers)
                body = json.loads(connection.getresponse().read())
            return body.get("result") is not None

        yield Service(str(stack.found["api_url"]), ask, _pids(stack))


def _pids(stack: BackgroundStack) -> list[int]:
    return [int(pid) for pid in stack.found["pids"].values()]


@contextmanager
def _usual_design(model: str) -> Iterator[Service]:
    artefact, _ = model_files(model)
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as name, ExitStack() as stack:
        folder = Path(name)
        valkey = Valkey(folder / "valkey")
        valkey.start()
        stack.callback(valkey.stop)
        environment = {
            **os.environ,
            **command_lines.ONE_THREAD,
            "USUAL_DESIGN_BROKER": valkey.url,
            "USUAL_DESIGN_ARTEFACT": str(artefact),
        }
        port = free_port(0)
        module = "benchmarks.usual_design"
        commands = {
            "web": ["gunicorn", "--workers=2", "--threads=16", f"--bind=127.0.0.1:{port}", f"{module}:web()"],
            "tasks": ["celery", f"--app={module}:tasks", "worker", "--concurrency=2", "--loglevel=WARNING"],
        }
        programs = []
        with (folder / "log").open("w") as log:
            for part, command in commands.items():
                argv = [sys.executable, "-m", *command]
                program = Program(part, argv, environment, Console(log), cwd=Path.cwd(), stop_seconds=20)
                program.start()
                stack.callback(program.stop)
                programs.append(program)
            service = Service(
                f"http://127.0.0.1:{port}", _ask_and_poll, [program.pid for program in programs if program.pid]
            )
            _wait_for(service)
            yield service


def _ask_and_poll(connection: http.client.HTTPConnection, record: bytes) -> bool:
    connection.request("POST", "/submit", record, {"Content-Type": "application/json"})
    task_id = json.loads(connection.getresponse().read())["id"]
    while True:
        connection.request("GET", f"/result/{task_id}")
        found = json.loads(connection.getresponse().read())
        if found["state"] in ("SUCCESS", "FAILURE"):
            return found["state"] == "SUCCESS"
        time.sleep(POLL_SECONDS)


def _wait_for(service: Service) -> None:
    parts, deadline = urlsplit(service.url), time.monotonic() + START_SECONDS
    while True:
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=START_SECONDS)
        try:
            connection.request("GET", "/result/none")
            connection.getresponse().read()
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
        finally:
            connection.close()


def _write(turns: list[Turn], given: argparse.Namespace) -> int:
    medians = {
        (name, clients): {
            measure: statistics.median(
                getattr(turn, measure) for turn in turns if (turn.service, turn.clients) == (name, clients)
            )
            for measure in ("per_second", "p50", "p95", "p99", "cpu")
        }
        for name in SERVICES
        for clients in given.clients
    }
    most, fewest = max(given.clients), min(given.clients)
    many = _ratios(turns, most, "per_second")
    quick = _ratios(turns, fewest, "p50")
    unanswered = sum(turn.unanswered for turn in turns)
    good = statistics.median(many) >= TIMES_AS_MANY and statistics.median(quick) <= AS_QUICK and not unanswered
    lines = [
        "# Single records against the usual design",
        "",
        f"{given.model}, two scoring processes each, {given.repeats} turns of {given.seconds:g} s by turns on {os.cpu_count()} "
        "cores that clients and both services share; medians. Times in ms from asking to the answer, CPU in ms of the service "
        "for each record. Every answer of Scorehouse is stored in Postgres, those of the usual design lie in Redis.",
        "",
        "| service | clients | per second | p50 | p95 | p99 | CPU |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {name} | {clients} | {each['per_second']:.0f} | {each['p50']:.1f} | {each['p95']:.1f} | {each['p99']:.1f} "
            f"| {each['cpu']:.1f} |"
            for (name, clients), each in medians.items()
        ),
        "",
        f"Records per second at {most} clients: {_told(many)} times as many (at least {TIMES_AS_MANY:g} are wanted). "
        f"Median wait of {fewest} client: {_told(quick)} times as long (at most {AS_QUICK:g}). Unanswered: {unanswered}.",
        "",
    ]
    REPORTS.mkdir(exist_ok=True)
    content = {"options": vars(given), "turns": [asdict(turn) for turn in turns]}
    (REPORTS / "singles_against.json").write_text(json.dumps(content, indent=2) + "\n")
    (REPORTS / "singles_against.md").write_text("\n".join(lines))
    print("\n".join(lines))
    return 0 if good else 1


def _ratios(turns: list[Turn], clients: int, measure: str) -> list[float]:
    """Of each pair, Scorehouse's over the other's."""
    ours, theirs = (
        [getattr(turn, measure) for turn in turns if (turn.service, turn.clients) == (name, clients)]
        for name in SERVICES
    )
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def _told(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    sys.exit(main())
