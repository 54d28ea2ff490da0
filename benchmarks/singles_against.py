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
import json
import os
import statistics
import sys
from contextlib import ExitStack
from dataclasses import asdict

from rich.progress import Progress

from benchmarks.bulk import REPORTS
from benchmarks.files import MODELS
from benchmarks.services import Turn, scorehouse, turn, usual_design
from benchmarks.singles import records_of_customers

WARM_SECONDS = 2.0
# The marks: requests per second at the most clients, median wait at one.
TIMES_AS_MANY, AS_QUICK = 10.0, 1.0
SERVICES = ("Scorehouse", "usual design")


def main() -> int:
    given = _arguments()
    records = [json.dumps(record).encode() for record in records_of_customers()]
    with ExitStack() as stack, Progress(disable=not sys.stderr.isatty()) as progress:
        services = {
            "Scorehouse": stack.enter_context(scorehouse(given.model)),
            "usual design": stack.enter_context(usual_design(given.model)),
        }
        for service in services.values():
            turn("warm", service, records, 2, WARM_SECONDS)
        turns = []
        task = progress.add_task("asking", total=given.repeats * len(given.clients) * len(services))
        for repeat in range(given.repeats):
            for clients in given.clients:
                order = SERVICES if repeat % 2 == 0 else SERVICES[::-1]
                for name in order:
                    turns.append(turn(name, services[name], records, clients, given.seconds))
                    progress.advance(task)
    return _write(turns, given)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="clients at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each service with each number of clients")
    parser.add_argument("--model", choices=MODELS, default="histgb", help="what scores")
    return parser.parse_args()


def _write(turns: list[Turn], given: argparse.Namespace) -> int:
    medians = {
        (name, clients): {
            measure: statistics.median(
                getattr(one, measure) for one in turns if (one.service, one.clients) == (name, clients)
            )
            for measure in ("per_second", "p50", "p95", "p99", "cpu")
        }
        for name in SERVICES
        for clients in given.clients
    }
    most, fewest = max(given.clients), min(given.clients)
    many = _ratios(turns, most, "per_second")
    quick = _ratios(turns, fewest, "p50")
    unanswered = sum(one.unanswered for one in turns)
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
    content = {"options": vars(given), "turns": [asdict(one) for one in turns]}
    (REPORTS / "singles_against.json").write_text(json.dumps(content, indent=2) + "\n")
    (REPORTS / "singles_against.md").write_text("\n".join(lines))
    print("\n".join(lines))
    return 0 if good else 1


def _ratios(turns: list[Turn], clients: int, measure: str) -> list[float]:
    """Of each pair, Scorehouse's over the other's."""
    ours, theirs = (
        [getattr(one, measure) for one in turns if (one.service, one.clients) == (name, clients)] for name in SERVICES
    )
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def _told(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    sys.exit(main())
