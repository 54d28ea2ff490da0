"""The stack that a benchmark runs against: one of its own, or the one that runs from a given data folder."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.files import model_files
from cli.background import SCOREHOUSE, BackgroundStack, free_port
from examples.churn.data import COLUMNS
from scorehouse_client import Client
from settings import Settings

VERSION = "1.0.0"
SUMMARY = re.compile(r"rows in ([\d.,]+) s \(")


@dataclass(frozen=True)
class Seconds:
    """`work`: from the start of the upload to the end of the download, to 0.1 s, as the command itself tells. `whole`:
    the process from start to end."""

    work: float
    whole: float


@contextmanager
def running_stack(data_dir: Path | None, workers: int) -> Iterator[BackgroundStack]:
    """A stack that is ready: what runs from `data_dir`, else a fresh one in a temporary folder that goes at the end."""
    if data_dir is not None:
        stack = BackgroundStack(data_dir)
        if not stack.found:
            raise SystemExit(f"no stack runs from {data_dir}: start it with `scorehouse up`, or leave --data-dir out")
        yield stack
        return
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as folder:
        stack = BackgroundStack(Path(folder) / "data")
        print(f"starting a stack with {workers} workers in {folder}", flush=True)
        try:
            stack.start(workers, free_port(0), free_port(0))
            yield stack
        finally:
            stack.stop()


def deploy(stack: BackgroundStack, names: Collection[str]) -> None:
    """Make each of the benchmark's models live on the stack, registering it when it is not there yet."""
    for name in names:
        artefact, reference = model_files(name)
        with client_of(stack) as client:
            client.register_version(
                model_name(name),
                VERSION,
                artefact,
                reference,
                key=COLUMNS.key,
                target=COLUMNS.label,
                trust=True,
            )
            client.deploy(model_name(name), VERSION)
        print(f"{model_name(name)} {VERSION} is live", flush=True)


def client_of(stack: BackgroundStack) -> Client:
    settings = Settings(data_dir=stack.data_dir)
    return Client(str(stack.found["api_url"]), (settings.data_dir / "admin.token").read_text().strip())


def model_name(name: str) -> str:
    return f"bench-{name}"


def score(stack: BackgroundStack, file: Path, name: str, out: Path) -> Seconds:
    """What a user types: `scorehouse score FILE --model M -o OUT`.

    Raises:
        RuntimeError: it failed, or not every row was scored.
    """
    command = [str(SCOREHOUSE), "score", str(file), "--model", model_name(name), "-o", str(out), "--strict"]
    began = time.perf_counter()
    done = subprocess.run(command, check=False, env=stack.environment, capture_output=True, text=True)
    whole = time.perf_counter() - began
    summary = SUMMARY.search(done.stderr)
    if done.returncode or summary is None:
        raise RuntimeError(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stderr}")
    return Seconds(float(summary[1].replace(",", "")), whole)


def memory_roots(stack: BackgroundStack) -> dict[str, int]:
    """The process at the head of each part of the stack."""
    return {name: int(pid) for name, pid in stack.found["pids"].items()}
