"""What a second worker brings, what a download costs alone, and how long it takes until somebody answers.

    python -m benchmarks.scaling --rows 1000000 --repeats 5 --models histgb forest

Two stacks, with one bulk worker and with two, score the same file by turns; told is the ratio of each pair. The results of a
finished job are downloaded and thrown away. A stack is started in an empty folder and again in the one that it leaves, then an API
and a worker are started alone beside it, each until it answers. Writes benchmarks/reports/scaling.json and scaling.md, and exits 1
when two workers are no faster than one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import urllib3

from benchmarks.bulk import REPORTS
from benchmarks.files import MODELS, csv_file
from benchmarks.stack import client_of, deploy, model_name, running_stack, score
from cli.background import SCOREHOUSE, BackgroundStack, free_port
from db import workers
from db.engine import create_engine, transaction
from embedded.console import Console
from embedded.program import Program
from examples.churn.data import customers

WORKERS = (1, 2)
POLL_SECONDS = 0.01
WAIT_SECONDS = 60.0
# API, Postgres and the client share the cores with the workers, so how much more it is depends on the machine.
LEAST_GAIN = 1.0
_CHILDREN = 2
_BESIDE = "beside"


def main() -> int:
    given = _arguments()
    file = csv_file(given.rows)
    with running_stack(None, WORKERS[0]) as one, running_stack(None, WORKERS[1]) as two:
        for stack in (one, two):
            deploy(stack, given.models)
        growth = [_growth(one, two, model, file, given) for model in given.models]
        download = _download(two, given.models[0], file, given)
    starts = [_starts(given.models[0]) for _ in range(given.repeats)]
    measured = {
        "machine": {
            "cores": psutil.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "python": platform.python_version(),
            "repeats": given.repeats,
        },
        "rows": given.rows,
        "growth": growth,
        "download": download,
        "starts": {what: _spread([each[what] for each in starts]) for what in starts[0]},
    }
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / f"{given.report}.json").write_text(json.dumps(measured, indent=2) + "\n")
    (REPORTS / f"{given.report}.md").write_text(_markdown(measured))
    print((REPORTS / f"{given.report}.md").read_text())
    return 0 if all(each["ratio"]["median"] > LEAST_GAIN for each in growth) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the file")
    parser.add_argument("--repeats", type=int, default=5, help="pairs per model, downloads, and starts")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["histgb", "forest"], help="to score with")
    parser.add_argument("--report", default="scaling", help="name of the two files in benchmarks/reports/")
    return parser.parse_args()


def _growth(
    one: BackgroundStack, two: BackgroundStack, model: str, file: Path, given: argparse.Namespace
) -> dict[str, Any]:
    """Seconds of work with each number of workers, and how often as fast two are as one."""
    seconds: dict[int, list[float]] = {number: [] for number in WORKERS}
    turns = [(WORKERS[0], one), (WORKERS[1], two)]
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as folder:
        for number in range(-1, given.repeats):  # the first pair warms up
            for children, stack in turns if number % 2 else reversed(turns):
                took = score(stack, file, model, Path(folder) / "out.csv").work
                if number >= 0:
                    seconds[children].append(took)
    ratios = [alone / both for alone, both in zip(*seconds.values(), strict=True)]
    print(f"{model}: two workers are {statistics.median(ratios):.2f} times as fast as one", flush=True)
    return {
        "model": model,
        "seconds": {children: statistics.median(each) for children, each in seconds.items()},
        "ratio": _spread(ratios),
        "pairs": seconds,
    }


def _download(stack: BackgroundStack, model: str, file: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The results of one job as CSV, with nothing else going on."""
    seconds, size = [], 0
    with client_of(stack) as client:
        job = client.wait(client.submit_file(file, model_name(model)).id, timeout=600)
        for _ in range(given.repeats):
            began = time.perf_counter()
            size = sum(len(block) for block in client.results(job.id))
            seconds.append(time.perf_counter() - began)
    middle = statistics.median(seconds)
    return {"seconds": _spread(seconds), "bytes": size, "rows_per_second": given.rows / middle, "mb_per_second": size / middle / 1e6}  # fmt: skip


def _starts(model: str) -> dict[str, float]:
    """Seconds until each of these answers."""
    took = {}
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as folder:
        stack = BackgroundStack(Path(folder) / "data")
        try:
            began = time.perf_counter()
            stack.start(_CHILDREN, free_port(0), free_port(0))
            took["`scorehouse up` in an empty folder, until it says that it is up"] = time.perf_counter() - began
            deploy(stack, [model])
            stack.stop()
            began = time.perf_counter()
            stack.start(_CHILDREN, free_port(0), free_port(0))
            _answered(stack, model)
            took["`scorehouse up` again, until a record is scored"] = time.perf_counter() - began
            took["`scorehouse api`, until it is ready"] = _api_alone(stack)
            took["`scorehouse worker`, until its children hold the model"] = _worker_alone(stack)
        finally:
            stack.stop()
    for what, seconds in took.items():
        print(f"{what}: {seconds:.2f} s", flush=True)
    return took


def _answered(stack: BackgroundStack, model: str) -> None:
    record = json.loads(customers(1).iloc[0].to_json())
    with client_of(stack) as client:
        assert client.submit(model_name(model), record, wait=WAIT_SECONDS).state == "succeeded"


def _api_alone(stack: BackgroundStack) -> float:
    port = free_port(0)
    began = time.perf_counter()
    with _beside(stack, "api", "--port", str(port)), urllib3.PoolManager(retries=False) as pool:
        _until(lambda: pool.request("GET", f"http://127.0.0.1:{port}/health/ready").status == 200)
        return time.perf_counter() - began


def _worker_alone(stack: BackgroundStack) -> float:
    engine = create_engine(str(stack.found["database_url"]), name="benchmark")

    def held() -> bool:
        with transaction(engine) as connection:
            beside = [each for each in workers.live(connection) if each.release.endswith(f"+{_BESIDE}")]
        return sum(bool(each.versions) for each in beside) == _CHILDREN

    try:
        began = time.perf_counter()
        with _beside(stack, "worker", "--concurrency", str(_CHILDREN)):
            _until(held)
            return time.perf_counter() - began
    finally:
        engine.dispose()


@contextmanager
def _beside(stack: BackgroundStack, *words: str) -> Iterator[None]:
    """`scorehouse WORDS…` on the servers and the folder of a stack, as another stack: two may not share all files."""
    environment = {**os.environ, "SCOREHOUSE_DATA_DIR": str(stack.data_dir), "SCOREHOUSE_STACK_NAME": _BESIDE}
    for name in ("database_url", "broker_url"):
        environment[f"SCOREHOUSE_{name.upper()}"] = str(stack.found[name])
    with Path(os.devnull).open("w") as nowhere:
        program = Program(words[0], [str(SCOREHOUSE), *words], environment, Console(nowhere), cwd=stack.data_dir)
        program.start()
        try:
            yield
        finally:
            program.stop()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            if holds():
                return
        except urllib3.exceptions.HTTPError:
            pass  # nobody listens yet
        if time.monotonic() > deadline:
            raise RuntimeError("it was not ready in time")
        time.sleep(POLL_SECONDS)


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def _markdown(measured: dict[str, Any]) -> str:
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in measured["machine"].items())
    download = measured["download"]
    growth = [
        f"| {each['model']} | "
        + "".join(f"{each['seconds'][children]:.1f} | " for children in WORKERS)
        + f"{_range(each['ratio'])} |"
        for each in measured["growth"]
    ]
    starts = [f"| {what} | {_range(seconds)} |" for what, seconds in measured["starts"].items()]
    return "\n".join(
        [
            "# A second worker, a download alone, and starts", "", f"Machine: {told}. Medians, with the lowest and highest.", "",
            f"Seconds for {measured['rows']:,} rows, from the start of the upload to the end of the download, and how often as "
            "fast two workers are as one, of each pair. API, Postgres and the client run on the same cores.", "",
            "| model | 1 worker s | 2 workers s | ratio |", "| --- | ---: | ---: | ---: |", *growth, "",
            f"The results of {measured['rows']:,} rows as CSV take {_range(download['seconds'])} s to download: "
            f"{download['rows_per_second']:,.0f} rows/s, {download['mb_per_second']:.0f} MB/s.", "",
            "| start | seconds |", "| --- | ---: |", *starts, "",
        ]
    )  # fmt: skip


def _range(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} ({values['lowest']:.2f} to {values['highest']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
