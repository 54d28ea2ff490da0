"""What single records cost: submissions per second and submit-to-result time, here and in another checkout, in pairs.

    git worktree add ../before v0.1.0
    python -m benchmarks.submits --against ../before

Two stacks run at once, one from each checkout; rounds of the one and of the other take turns, so that a machine that gets slower
slows both. A round is some seconds of clients that submit one record after the other and do not wait, then as many of clients that
wait for each result. Before the next round everything is scored. Writes benchmarks/reports/submits.json and submits.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bulk import REPORTS
from benchmarks.singles import records_of_customers
from benchmarks.stack import client_of, deploy, model_name, running_stack
from cli.background import BackgroundStack
from scorehouse_client import Client

MODEL = "logistic"
HERE = Path(__file__).parents[1]


def main() -> int:
    given = _arguments()
    trees = {"here": HERE, "before": given.against.resolve()}
    records = records_of_customers()
    with _stack(trees["here"]) as here, _stack(trees["before"]) as before:
        stacks = {"here": here, "before": before}
        for stack in stacks.values():
            deploy(stack, {MODEL})
            _round(stack, records, given.clients, 2.0)  # nobody's first request counts
        rounds: dict[str, list[dict[str, float]]] = {"here": [], "before": []}
        for number in range(given.rounds):
            for name in sorted(stacks, reverse=number % 2 == 0):
                measured = _round(stacks[name], records, given.clients, given.seconds)
                rounds[name].append(measured)
                print(f"{name:7}" + "  ".join(f"{key} {value:,.1f}" for key, value in measured.items()), flush=True)
    _write(rounds, {name: _revision(tree) for name, tree in trees.items()}, given)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", type=Path, required=True, help="checkout to compare with")
    parser.add_argument("--clients", type=int, default=4, help="clients at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each half of a round takes")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each")
    return parser.parse_args()


@contextmanager
def _stack(tree: Path) -> Iterator[BackgroundStack]:
    """A stack whose code is that of a checkout: it comes before what is installed."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{tree}:{tree / 'client'}"
    try:
        with running_stack(None, 1) as stack:
            _restore(before)
            yield stack
    finally:
        _restore(before)


def _restore(path: str | None) -> None:
    if path is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = path


def _round(stack: BackgroundStack, records: list[dict[str, Any]], clients: int, seconds: float) -> dict[str, float]:
    def submit(client: Client, record: dict[str, Any]) -> None:
        client.submit(model_name(MODEL), record)

    def score(client: Client, record: dict[str, Any]) -> None:
        if client.submit(model_name(MODEL), record, wait=10).result is None:
            raise RuntimeError("a record was not scored within 10 s")

    submitted = _loop(stack, records, clients, seconds, submit)
    _until_all_is_scored(stack)
    scored = _loop(stack, records, clients, seconds, score)
    return {
        "submits_per_second": len(submitted) / seconds,
        "submit_p50_ms": 1000 * statistics.median(submitted),
        "result_p50_ms": 1000 * statistics.median(scored),
        "result_p95_ms": 1000 * statistics.quantiles(scored, n=20)[-1],
    }


def _loop(
    stack: BackgroundStack,
    records: list[dict[str, Any]],
    clients: int,
    seconds: float,
    call: Callable[[Client, dict[str, Any]], None],
) -> list[float]:
    """Seconds of each call of each client."""
    end = time.perf_counter() + seconds

    def one(number: int) -> list[float]:
        found: list[float] = []
        with client_of(stack) as client:
            while (began := time.perf_counter()) < end:
                call(client, records[(number + clients * len(found)) % len(records)])
                found.append(time.perf_counter() - began)
        return found

    with ThreadPoolExecutor(clients) as pool:
        return [waited for each in pool.map(one, range(clients)) for waited in each]


def _until_all_is_scored(stack: BackgroundStack) -> None:
    with client_of(stack) as client:
        deadline = time.monotonic() + 300
        while any(next(client.jobs(state=state, page_size=1), None) for state in ("queued", "running")):
            if time.monotonic() > deadline:
                raise RuntimeError("the stack did not score what was submitted within five minutes")
            time.sleep(0.1)


def _revision(tree: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def _write(rounds: dict[str, list[dict[str, float]]], revisions: dict[str, str], given: argparse.Namespace) -> None:
    medians = {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]}
        for name, found in rounds.items()
    }
    ratios = {
        key: statistics.median(a[key] / b[key] for a, b in zip(rounds["here"], rounds["before"], strict=True))
        for key in medians["here"]
    }
    document = {"revisions": revisions, "rounds": rounds, "medians": medians, "ratios": ratios}
    (REPORTS / "submits.json").write_text(json.dumps(document, indent=2) + "\n")
    lines = [
        "# What single records cost",
        "",
        f"`python -m benchmarks.submits`: {given.rounds} rounds of each of two stacks that take turns, {given.clients} clients, "
        f"{given.seconds:g} s for each half of a round. Medians; the ratio is the median of those of the pairs.",
        "",
        f"| | here ({revisions['here']}) | before ({revisions['before']}) | ratio |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {key.replace('_', ' ')} | {medians['here'][key]:,.1f} | {medians['before'][key]:,.1f} | {ratios[key]:.2f} |"
            for key in ratios
        ),
    ]
    (REPORTS / "submits.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(main())
