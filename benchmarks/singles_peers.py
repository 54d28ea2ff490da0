"""Single records, against the servers that one would put a model into, each in pairs with Scorehouse.

    python -m benchmarks.singles_peers --clients 1 8 32 --seconds 5 --repeats 3

Each peer has a script in benchmarks/peers, written as its own documentation would have it, and what is not in our lock file
an environment of its own (`benchmarks.environments`). Scorehouse runs from first to last; a peer is started, answers a hundred
records for a comparison with the model itself, is warmed, takes its turns, each right before or after one of Scorehouse's, and
is stopped. All have two scoring processes with one thread for each library, and the same clients (`benchmarks.services`).

Writes benchmarks/reports/singles_peers.json and .md. Exits 1 when a peer cannot be installed or started, or answers wrongly or
not at all.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

from benchmarks import environments
from benchmarks.bulk import REPORTS
from benchmarks.equality import TOLERANCE
from benchmarks.files import MODELS, model_files
from benchmarks.processes import running
from benchmarks.services import Ask, Service, Turn, connection_to, post, scorehouse, turn, usual_design, wait_for
from benchmarks.singles import records_of_customers
from cli import command_lines
from cli.background import free_port

PEERS = "benchmarks.peers"
LIBRARIES = ("scikit-learn", "pandas", "numpy")
COMPARED = 100
WARM_SECONDS = 2.0
MLSERVER_BATCH = {"max_batch_size": 32, "max_batch_time": 0.01}


def main() -> int:
    given = _arguments()
    records = records_of_customers()
    bodies = [json.dumps(record).encode() for record in records]
    wanted = _probabilities(given.model, records[:COMPARED])
    measured = []
    with scorehouse(given.model) as ours:
        _check(ours, bodies, wanted)
        for peer in (peer for peer in ALL if peer.name in given.peers):
            one = Measured(peer.name, peer.durable)
            measured.append(one)
            try:
                _measure(peer, one, ours, bodies=bodies, wanted=wanted, given=given)
            except Exception as error:  # whatever it is that a tool cannot do; the others go on
                one.failure = str(error)
                print(f"{peer.name} failed: {error}", flush=True)
            _write(measured, given)
    print((REPORTS / "singles_peers.md").read_text())
    return 0 if all(one.failure is None and not one.unanswered for one in measured) else 1


@dataclass(frozen=True)
class Peer:
    """`command` gets the Python of the environment, a port and a folder. `path` answers once the server is ready."""

    name: str
    ask: Ask
    command: Callable[[str, int, Path], list[str]]
    environment: str | None = None
    packages: tuple[str, ...] = ()
    durable: str = "no"
    path: str = "/"


@dataclass
class Measured:
    """Turns of a peer, and those of Scorehouse beside them, one for one."""

    peer: str
    durable: str
    versions: dict[str, str] = field(default_factory=dict)
    theirs: list[Turn] = field(default_factory=list)
    ours: list[Turn] = field(default_factory=list)
    failure: str | None = None

    @property
    def unanswered(self) -> int:
        return sum(one.unanswered for one in [*self.theirs, *self.ours])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="clients at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of each peer with each number of clients")
    parser.add_argument("--model", choices=MODELS, default="histgb", help="what scores")
    names = [peer.name for peer in ALL]
    parser.add_argument("--peers", nargs="+", choices=names, default=names)
    return parser.parse_args()


def _probabilities(model: str, records: list[dict[str, object]]) -> list[float]:
    """Those of the second class, of the model called in this process."""
    scored = joblib.load(model_files(model)[0]).predict_proba(pd.DataFrame(records))
    return [float(one) for one in scored[:, 1]]


def _measure(
    peer: Peer, one: Measured, ours: Service, *, bodies: list[bytes], wanted: list[float], given: argparse.Namespace
) -> None:
    python = environments.python_of(peer.environment)
    one.versions = environments.versions(python, [*peer.packages, *LIBRARIES])
    with _started(peer, python, given.model) as theirs:
        _check(theirs, bodies, wanted)
        turn("warm", theirs, bodies, max(given.clients), WARM_SECONDS)
        turn("warm", ours, bodies, max(given.clients), WARM_SECONDS)
        for repeat in range(given.repeats):
            for clients in given.clients:
                order = [(theirs, one.theirs), (ours, one.ours)]
                for service, turns in order if repeat % 2 == 0 else order[::-1]:
                    name = peer.name if service is theirs else "Scorehouse"
                    turns.append(turn(name, service, bodies, clients, given.seconds))
                    print(turns[-1], flush=True)


def _check(service: Service, bodies: list[bytes], wanted: list[float]) -> None:
    """Raises RuntimeError when its answers are not those of the model."""
    connection = connection_to(service)
    found = [service.ask(connection, body) for body in bodies[: len(wanted)]]
    connection.close()
    answered = [one for one in found if one is not None]
    if len(answered) < len(wanted) or np.abs(np.array(answered) - wanted).max() > TOLERANCE:
        wrong = sum(one is None or abs(one - other) > TOLERANCE for one, other in zip(found, wanted, strict=True))
        raise RuntimeError(f"{wrong} of {len(wanted)} answers are missing or not those of the model")


@contextmanager
def _started(peer: Peer, python: str, model: str) -> Iterator[Service]:
    if peer.name == USUAL_DESIGN:
        with usual_design(model) as service:
            yield service
        return
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as name, ExitStack() as ends:
        folder, port = Path(name), free_port(0)
        variables = {
            **command_lines.ONE_THREAD,
            **environments.settings(folder),
            "PEER_ARTEFACT": str(model_files(model)[0]),
            "PYTHONPATH": str(Path.cwd()),
        }
        program = ends.enter_context(running("server", peer.command(python, port, folder), variables, folder))
        assert program.pid is not None
        service = Service(f"http://127.0.0.1:{port}", peer.ask, [program.pid])
        wait_for(service, [program], peer.path)
        yield service


def _ask(connection: http.client.HTTPConnection, record: bytes) -> float | None:
    answer = post(connection, "/predict", record)
    return None if answer is None else float(answer["probability"][1])


def _ask_bentoml(connection: http.client.HTTPConnection, record: bytes) -> float | None:
    answer = post(connection, "/predict", b'{"records": [' + record + b"]}")
    return None if answer is None else float(answer[0][1])


def _ask_mlserver(connection: http.client.HTTPConnection, record: bytes) -> float | None:
    column = {"name": "record", "shape": [1], "datatype": "BYTES", "data": [record.decode()]}
    answer = post(connection, "/v2/models/scorer/infer", json.dumps({"inputs": [column]}).encode())
    return None if answer is None else float(answer["outputs"][0]["data"][1])


def _flask(python: str, port: int, _: Path) -> list[str]:
    options = ["--workers=2", "--threads=4", f"--bind=127.0.0.1:{port}"]
    return [python, "-m", "gunicorn", *options, f"{PEERS}.flask_server:app"]


def _fastapi(python: str, port: int, _: Path) -> list[str]:
    options = ["--workers=2", "--host=127.0.0.1", f"--port={port}", "--no-access-log"]
    return [python, "-m", "uvicorn", *options, f"{PEERS}.fastapi_server:app"]


def _bentoml(python: str, port: int, _: Path) -> list[str]:
    return [python, "-m", "bentoml", "serve", f"{PEERS}.bentoml_server:Scorer", "--host=127.0.0.1", f"--port={port}"]


def _mlserver(python: str, port: int, folder: Path) -> list[str]:
    server = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(0), "metrics_port": free_port(0)}
    model = {"name": "scorer", "implementation": f"{PEERS}.mlserver_runtime.Scorer", **MLSERVER_BATCH}
    quiet = {"parallel_workers": 2, "debug": False}
    home = folder / "scorer"
    home.mkdir()
    (home / "settings.json").write_text(json.dumps({**server, **quiet}))
    (home / "model-settings.json").write_text(json.dumps(model))
    return [str(Path(python).with_name("mlserver")), "start", str(home)]


def _ray(python: str, port: int, folder: Path) -> list[str]:
    return [python, str(environments.PEERS / "ray_server.py"), str(port), str(folder / "ray")]


USUAL_DESIGN = "usual design"
ALL = (
    Peer("Flask, synchronous", _ask, _flask, packages=("flask", "gunicorn"), path="/ready"),
    Peer("FastAPI", _ask, _fastapi, "fastapi", ("fastapi", "uvicorn"), path="/docs"),
    Peer("BentoML", _ask_bentoml, _bentoml, "bentoml", ("bentoml",), path="/readyz"),
    Peer("MLServer", _ask_mlserver, _mlserver, "mlserver", ("mlserver",), path="/v2/models/scorer/ready"),
    Peer("Ray Serve", _ask, _ray, "ray", ("ray",), path="/-/healthz"),
    Peer(USUAL_DESIGN, _ask, lambda *_: [], packages=("celery", "flask", "gunicorn"), durable="no (Redis)"),
)


def _write(measured: list[Measured], given: argparse.Namespace) -> None:
    content = {"options": vars(given), "cores": os.cpu_count(), "measured": [asdict(one) for one in measured]}
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "singles_peers.json").write_text(json.dumps(content, indent=2) + "\n")
    (REPORTS / "singles_peers.md").write_text("\n".join(_lines(measured, given)))


def _lines(measured: list[Measured], given: argparse.Namespace) -> list[str]:
    return [
        "# Single records against other servers",
        "",
        f"{given.model}, two scoring processes each, {given.repeats} pairs of turns of {given.seconds:g} s on {os.cpu_count()} cores "
        "that clients and services share. Medians: requests per second, times in ms from asking to the answer, CPU in ms of the "
        "service for each record; in brackets Scorehouse's in the same pairs. The ratio is Scorehouse's requests per second to the "
        "peer's, of each pair, with the lowest and highest. Every answer of Scorehouse is stored in Postgres before it is given.",
        "",
        "| peer | clients | per second | p50 | p95 | CPU | ratio | unanswered | durable |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        *(line for one in measured for line in _rows(one, given.clients)),
        "",
        f"Batches wait at most {1000 * MLSERVER_BATCH['max_batch_time']:g} ms for company at MLServer and Ray Serve, and as long as it "
        "finds good at BentoML. The first answers of each were compared with the model's.",
        "",
        "| peer | versions |",
        "| --- | --- |",
        *(f"| {one.peer} | {', '.join(f'{name} {each}' for name, each in one.versions.items())} |" for one in measured),
        "",
    ]  # fmt: skip


def _rows(one: Measured, clients: list[int]) -> Iterator[str]:
    if one.failure is not None:
        yield f"| {one.peer} | | FAILED: {' '.join(one.failure.split()).replace('|', '/')} |" + " |" * 6
        return
    for number in clients:
        pairs = [pair for pair in zip(one.theirs, one.ours, strict=True) if pair[0].clients == number]
        told = " | ".join(_medians(pairs, measure) for measure in ("per_second", "p50", "p95", "cpu"))
        ratios = [ours.per_second / theirs.per_second for theirs, ours in pairs if theirs.answered]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
        unanswered = sum(theirs.unanswered for theirs, _ in pairs)
        yield f"| {one.peer} | {number} | {told} | {ratio} | {unanswered} | {one.durable} |"


def _medians(pairs: list[tuple[Turn, Turn]], measure: str) -> str:
    """The peer's, and in brackets Scorehouse's."""
    theirs, ours = (statistics.median(getattr(one, measure) for one in side) for side in zip(*pairs, strict=True))
    return f"{theirs:.1f} ({ours:.1f})"


if __name__ == "__main__":
    sys.exit(main())
