"""Two versions of the flights model, switched while files and single records are scored: does anybody notice?

    python -m benchmarks.blue_green

Version 1.0.0 is trained on January to March (`scorehouse train`). April to June are scored with it, their labels come late,
and `scorehouse retrain` makes 1.1.0 of all that. Then, while the flights of the year are scored one file after the other and
clients send one record after the other, 1.1.0 is deployed and taken back, several times. Writes benchmarks/reports/blue_green.json and
blue_green.md, and exits 1 when a request failed, a row was scored by another version than its job was pinned to, or the
rollback took longer than a second from the command to the first job on the old version (median).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.bulk import REPORTS
from benchmarks.stack import running_stack
from cli.background import SCOREHOUSE, BackgroundStack
from db.engine import create_engine, transaction
from examples.flights.data import COLUMNS, flights
from examples.flights.months import write_months
from scorehouse_client import Client, ScorehouseClientError

MODEL = "flights"
OLD = "1.0.0"
LONGEST_ROLLBACK = 1.0
WAIT_SECONDS = 10


@dataclass
class Traffic:
    """What the clients saw; `singles` are (when it was sent, version that answered)."""

    singles: list[tuple[float, str]] = field(default_factory=list)
    files: list[tuple[str, int]] = field(default_factory=list)  # version and rows of each job
    failures: list[str] = field(default_factory=list)


def main() -> int:
    given = _arguments()
    with (
        tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as name,
        running_stack(None, given.workers) as stack,
    ):
        folder = Path(name)
        versions = _two_versions(stack, folder)
        year = folder / "year.csv"
        flights(range(1, 13)).drop(columns=COLUMNS.label).to_csv(year, index=False)
        with _traffic(stack, year, given.clients) as traffic:
            rounds = [_there_and_back(stack, traffic, versions["new"], given) for _ in range(given.rounds)]
            time.sleep(given.seconds)
        strays = _strays(stack)
    measured = {
        "versions": versions,
        **{name: statistics.median(each[name] for each in rounds) for name in rounds[0]},
        "rounds": rounds,
        "singles": Counter(version for _, version in traffic.singles),
        "files": Counter(version for version, _ in traffic.files),
        "rows": sum(rows for _, rows in traffic.files),
        "failed_requests": len(traffic.failures),
        "rows_of_another_version": strays,
    }
    _write(measured, traffic, given)
    good = not traffic.failures and not strays and measured["rollback_to_first_job_seconds"] <= LONGEST_ROLLBACK
    return 0 if good else 1


def _there_and_back(stack: BackgroundStack, traffic: Traffic, new: str, given: argparse.Namespace) -> dict[str, float]:
    """Deploy the new version and take it back: how long each command took, and how long until the first job of its version."""
    time.sleep(given.seconds)
    deployed = _timed(stack, "models", "deploy", MODEL, new, *given.gate)
    switched = _first(traffic, new, deployed[0])
    time.sleep(given.seconds)
    rolled_back = _timed(stack, "models", "rollback", MODEL)
    returned = _first(traffic, OLD, rolled_back[0])
    return {
        "deploy_command_seconds": deployed[1] - deployed[0],
        "deploy_to_first_job_seconds": switched - deployed[0],
        "rollback_command_seconds": rolled_back[1] - rolled_back[0],
        "rollback_to_first_job_seconds": returned - rolled_back[0],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=4, help="clients that send singles")
    parser.add_argument("--seconds", type=float, default=5.0, help="traffic before, between and after the switches")
    parser.add_argument("--rounds", type=int, default=5, help="times that it is deployed and taken back")
    parser.add_argument("--workers", type=int, default=2, help="bulk workers of the stack")
    parser.add_argument("gate", nargs="*", help="further options of `models deploy`, after --")
    return parser.parse_args()


def _two_versions(stack: BackgroundStack, folder: Path) -> dict[str, Any]:
    """Train, deploy, score, label and retrain; the old version and the new one, with what the training found."""
    first = folder / "first-quarter.csv"
    quarter = flights([1, 2, 3])
    quarter[quarter[COLUMNS.label].notna()].to_csv(first, index=False)
    options = ["--data", str(first), "--target", COLUMNS.label, "--key", COLUMNS.key, "--version", OLD]
    _run(stack, "train", MODEL, *options, "--register", "--out", str(folder / "trained"))
    _run(stack, "models", "deploy", MODEL, OLD)
    for month in write_months([4, 5, 6], folder):
        out = folder / "scored.csv"
        _run(stack, "score", str(month.inputs), "--model", MODEL, "--as-of", month.middle, "-o", str(out))
        _run(stack, "labels", "upload", str(month.labels), "--model", MODEL)
    done = json.loads(_run(stack, "retrain", MODEL, "--wait", "--json"))
    if done["state"] != "succeeded":
        raise RuntimeError(f"the retraining has {done['state']}: {done['reason']}")
    print(f"retrained: {done['challenger']} is {done['document']['comparison']['verdict']}", flush=True)
    return {"old": OLD, "new": done["challenger"], "comparison": done["document"]["comparison"]}


def _run(stack: BackgroundStack, *command: str) -> str:
    """What a user types; its standard output.

    Raises:
        RuntimeError: it failed.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [str(SCOREHOUSE), *command], env=stack.environment, capture_output=True, text=True, check=False
    )
    print(f"{time.perf_counter() - began:6.1f} s  scorehouse {' '.join(command)}", flush=True)
    if done.returncode:
        raise RuntimeError(f"scorehouse {' '.join(command)} ended with code {done.returncode}:\n{done.stderr}")
    return done.stdout


def _timed(stack: BackgroundStack, *command: str) -> tuple[float, float]:
    began = time.perf_counter()
    _run(stack, *command)
    return began, time.perf_counter()


@contextmanager
def _traffic(stack: BackgroundStack, year: Path, clients: int) -> Iterator[Traffic]:
    """Files one after the other and clients in closed loops, until the block ends."""
    traffic, over = Traffic(), threading.Event()
    april = next(write_months([4], year.parent)).inputs
    header, *lines = april.read_text().splitlines()[:2000]
    records = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    complete = [record for record in records if all(record.values())]

    def singles(number: int) -> None:
        with _client(stack) as client:
            place = number
            while not over.is_set():
                record, place = _typed(complete[place % len(complete)]), place + clients
                began = time.perf_counter()
                try:
                    job = client.submit(MODEL, record, wait=WAIT_SECONDS)
                except ScorehouseClientError as exc:
                    traffic.failures.append(str(exc))
                    continue
                if job.result:
                    traffic.singles.append((began, job.model_version))
                else:
                    traffic.failures.append(f"{job.id} has no result after {WAIT_SECONDS} s")

    def files() -> None:
        with _client(stack) as client:
            while not over.is_set():
                try:
                    job = client.wait(client.submit_file(year, MODEL, key_column=COLUMNS.key).id)
                except ScorehouseClientError as exc:
                    traffic.failures.append(str(exc))
                    continue
                traffic.files.append((job.model_version, job.rows.succeeded + job.rows.errored))

    with ThreadPoolExecutor(clients + 1) as pool:
        running = [pool.submit(singles, number) for number in range(clients)] + [pool.submit(files)]
        try:
            yield traffic
        finally:
            over.set()
        for each in running:
            each.result()


def _typed(record: dict[str, str]) -> dict[str, Any]:
    words = {COLUMNS.key, *COLUMNS.categories}
    return {name: text if name in words else float(text) for name, text in record.items()}


def _client(stack: BackgroundStack) -> Client:
    """One that does not try again: a request that fails is to be seen."""
    return Client(str(stack.found["api_url"]), (stack.data_dir / "admin.token").read_text().strip(), retry_for=0.0)


def _first(traffic: Traffic, version: str, since: float) -> float:
    """When the first single was sent, after `since`, that this version answered; waits for it."""
    deadline = time.perf_counter() + 30
    while time.perf_counter() < deadline:
        found = [sent for sent, answered in list(traffic.singles) if sent >= since and answered == version]
        if found:
            return min(found)
        time.sleep(0.01)
    raise RuntimeError(f"no single was answered by {version}")


def _strays(stack: BackgroundStack) -> int:
    """Predictions by another version than their job was pinned to."""
    engine = create_engine(str(stack.found["database_url"]), name="benchmark")
    with transaction(engine) as connection:
        query = "SELECT count(*) FROM prediction p JOIN job ON job.id = p.job_id WHERE p.version_id <> job.version_id"
        strays: int = connection.execute(sa.text(query)).scalar_one()
    engine.dispose()
    return strays


def _write(measured: dict[str, Any], traffic: Traffic, given: argparse.Namespace) -> None:
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "blue_green.json").write_text(
        json.dumps({"options": vars(given), "measured": measured}, indent=2) + "\n"
    )
    singles = ", ".join(f"{count:,} by {version}" for version, count in sorted(measured["singles"].items()))
    files = ", ".join(f"{count} by {version}" for version, count in sorted(measured["files"].items()))
    each = [f"{switch['rollback_to_first_job_seconds']:.2f}" for switch in measured["rounds"]]
    lines = [
        "# Two versions, switched under load", "",
        f"{given.clients} clients with one record after the other, and the {measured['rows']:,} rows of "
        f"{len(traffic.files)} files beside them, on a stack of {given.workers} bulk workers. Seconds are medians of "
        f"{given.rounds} switches there and back.", "",
        "| what | measured | wanted |", "| --- | ---: | ---: |",
        f"| requests that failed | {measured['failed_requests']} of {len(traffic.singles) + len(traffic.files):,} | 0 |",
        f"| rows scored by another version than their job was pinned to | {measured['rows_of_another_version']} | 0 |",
        f"| from `models deploy` to the first job on the new version | {measured['deploy_to_first_job_seconds']:.2f} s | |",
        f"| the command as a whole | {measured['deploy_command_seconds']:.2f} s | |",
        f"| from `models rollback` to the first job on the old version | {measured['rollback_to_first_job_seconds']:.2f} s "
        f"| at most {LONGEST_ROLLBACK:g} s |",
        f"| the command as a whole | {measured['rollback_command_seconds']:.2f} s | |", "",
        f"From `models rollback` to the first job, each: {', '.join(each)} s.", "",
        f"Singles: {singles}. Files: {files}.", "",
        *(f"- {failure}" for failure in traffic.failures[:20]),
    ]  # fmt: skip
    (REPORTS / "blue_green.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
