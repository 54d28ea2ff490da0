"""Submit-to-result time of single records, on an idle stack and while a bulk job runs.

    python -m benchmarks.singles --clients 4 --seconds 10 --repeats 5 --bulk-rows 1000000

Each client submits one record with `Prefer: wait=10`, takes the answer, and submits the next: a closed loop. While the
bulk job is being scored the singles go on; the file is scored again until their time is over. Writes
benchmarks/reports/singles.json and singles.md, and exits 1 when an answer is missing or the p95 grows more than twofold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bulk import REPORTS
from benchmarks.files import MODELS, SEED, csv_file
from benchmarks.stack import client_of, deploy, model_name, running_stack, score
from cli.background import BackgroundStack
from examples.churn.data import COLUMNS, customers

LARGEST_RATIO = 2.0
_MEASURES = ("per_second", "p50", "p95", "p99", "largest")
WAIT_SECONDS = 10


def main() -> int:
    given = _arguments()
    records = records_of_customers()
    pairs: list[dict[str, dict[str, Any]]] = []
    with running_stack(given.data_dir, given.workers) as stack:
        deploy(stack, {given.model, given.bulk_model})
        file = csv_file(given.bulk_rows)
        _loop(stack, given.model, records, given.clients, 2.0)  # nobody's first request counts
        for _ in range(given.repeats):
            waited = _loop(stack, given.model, records, given.clients, given.seconds)
            pair = {"idle": _summary(waited, given.seconds)}
            with _bulk_running(stack, file, given.bulk_model) as bulk_seconds:
                waited = _loop(stack, given.model, records, given.clients, given.seconds)
            pair["bulk"] = _summary(waited, given.seconds) | {"bulk_job_seconds": bulk_seconds}
            pairs.append(pair)
            print("\n".join(_line(name, one) for name, one in pair.items()), flush=True)
    ratios = [pair["bulk"]["p95"] / pair["idle"]["p95"] for pair in pairs]
    _write(pairs, ratios, given)
    unanswered = sum(one["unanswered"] for pair in pairs for one in pair.values())
    return 0 if statistics.median(ratios) <= LARGEST_RATIO and not unanswered else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=4, help="clients at once")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each part of a pair takes")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of a part without and one beside bulk")
    parser.add_argument("--model", choices=MODELS, default="histgb", help="model of the singles")
    parser.add_argument("--bulk-model", choices=MODELS, default="histgb", help="model of the bulk job")
    parser.add_argument("--bulk-rows", type=int, default=1_000_000, help="rows of the bulk job")
    parser.add_argument("--workers", type=int, default=2, help="workers of a stack started here")
    parser.add_argument("--data-dir", type=Path, help="use the stack that runs from this folder")
    return parser.parse_args()


def records_of_customers() -> list[dict[str, Any]]:
    """The inputs of a thousand customers, as they are submitted one by one."""
    rows = customers(1000, SEED)[COLUMNS.features].astype(object)
    return [dict(zip(rows.columns, row, strict=True)) for row in rows.where(rows.notna(), None).to_numpy().tolist()]


def _loop(
    stack: BackgroundStack, model: str, records: list[dict[str, Any]], clients: int, seconds: float
) -> list[float | None]:
    """Seconds from submit to result of every single of every client; None for one without a result."""
    end = time.perf_counter() + seconds
    with ThreadPoolExecutor(clients) as pool:
        loops = [pool.submit(_one_client, stack, model, records[number::clients], end) for number in range(clients)]
        return [waited for loop in loops for waited in loop.result()]


def _one_client(stack: BackgroundStack, model: str, records: list[dict[str, Any]], end: float) -> list[float | None]:
    waited: list[float | None] = []
    with client_of(stack) as client:
        while time.perf_counter() < end:
            began = time.perf_counter()
            job = client.submit(model_name(model), records[len(waited) % len(records)], wait=WAIT_SECONDS)
            waited.append(time.perf_counter() - began if job.result else None)
    return waited


@contextmanager
def _bulk_running(stack: BackgroundStack, file: Path, model: str) -> Iterator[list[float]]:
    """Scores the file again and again while the block runs; yields the list of how long each time took (s)."""
    seconds: list[float] = []
    over = threading.Event()

    def keep_scoring(folder: str) -> None:
        while not over.is_set():
            began = time.perf_counter()
            score(stack, file, model, Path(folder) / "out.csv")
            seconds.append(time.perf_counter() - began)

    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as folder, ThreadPoolExecutor(1) as pool:
        scoring = pool.submit(keep_scoring, folder)
        try:
            _wait_until_a_job_runs(stack, model, scoring)
            yield seconds
        finally:
            over.set()
            scoring.result()


def _wait_until_a_job_runs(stack: BackgroundStack, model: str, scoring: Future[None]) -> None:
    with client_of(stack) as client:
        while not scoring.done() and not any(client.jobs(state="running", model=model_name(model))):
            time.sleep(0.02)


def _summary(waited: list[float | None], seconds: float) -> dict[str, Any]:
    answered = [one * 1000 for one in waited if one is not None]
    p50, p95, p99 = np.percentile(answered, [50, 95, 99])
    return {
        "singles": len(waited),
        "unanswered": len(waited) - len(answered),
        "per_second": len(answered) / seconds,
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
        "largest": max(answered),
    }


def _line(name: str, one: Mapping[str, Any]) -> str:
    return (
        f"| {name} | {one['singles']} | {one['unanswered']} | {one['per_second']:.0f} | {one['p50']:.1f} "
        f"| {one['p95']:.1f} | {one['p99']:.1f} | {one['largest']:.1f} |"
    )


def _write(pairs: list[dict[str, dict[str, Any]]], ratios: list[float], given: argparse.Namespace) -> None:
    options = {name: value for name, value in vars(given).items() if name != "data_dir"}
    REPORTS.mkdir(exist_ok=True)
    content = {"options": options, "pairs": pairs, "p95_ratios": ratios}
    (REPORTS / "singles.json").write_text(json.dumps(content, indent=2) + "\n")
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in options.items())
    medians = {
        name: {measure: statistics.median(pair[name][measure] for pair in pairs) for measure in _MEASURES}
        | {"singles": sum(pair[name]["singles"] for pair in pairs)}
        | {"unanswered": sum(pair[name]["unanswered"] for pair in pairs)}
        for name in ("idle", "bulk")
    }
    lines = [
        "# Single records beside a bulk job", "", f"{told}. Times in ms from submit to result; medians of the pairs.", "",
        "| while | singles | unanswered | per second | p50 | p95 | p99 | largest |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_line(name, one) for name, one in medians.items()), "",
        f"The p95 beside bulk is {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) times the idle one (at most "
        f"{LARGEST_RATIO:g} is wanted).", "",
    ]  # fmt: skip
    (REPORTS / "singles.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
