"""The stack that a benchmark runs against: one of its own, or the one that runs from a given data folder."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.files import COLUMNS, model_files
from cli.background import SCOREHOUSE, BackgroundStack, free_port
from scorehouse_client import Client
from settings import Settings

VERSION = "1.0.0"


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


def deploy(stack: BackgroundStack, names: Sequence[str]) -> None:
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


def score(stack: BackgroundStack, file: Path, name: str, out: Path) -> None:
    """What a user types: `scorehouse score FILE --model M -o OUT`. Raises CalledProcessError when it fails."""
    command = [str(SCOREHOUSE), "score", str(file), "--model", model_name(name), "-o", str(out)]
    subprocess.run(command, env=stack.environment, check=True, stdout=subprocess.DEVNULL)


def memory_roots(stack: BackgroundStack) -> dict[str, int]:
    """The process at the head of each part of the stack."""
    return {name: int(pid) for name, pid in stack.found["pids"].items()}
