"""The long form, by hand: many CSV inputs through the whole pipeline, and a report.

    python tests/fuzz/long_form.py --inputs 100000 --seed 5 --report tests/fuzz/reports

Run by `make fuzz`. It starts a Postgres of its own; inputs are numbered, and a mismatch is told with its number:
`python tests/fuzz/long_form.py --seed 5 --only 4711` runs that one alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import csv_inputs
from in_process import in_process
from judge import Tally, judge

from embedded.postgres import Postgres
from migrations import upgrade

TOGETHER = 50
SHOWN = 20


def main() -> int:
    options = _options()
    first, last = (options.only, options.only + 1) if options.only is not None else (0, options.inputs)
    edges = [first + (last - first) * part // options.processes for part in range(options.processes + 1)]
    began = time.monotonic()
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        until = time.time() + options.minutes * 60
        parts = len(edges) - 1
        tallies = list(pool.map(run, [options.seed] * parts, edges[:-1], edges[1:], [until] * parts))
    tally = reduce(Tally.plus, tallies)
    found = _report(tally, options.seed, time.monotonic() - began)
    print(json.dumps(found, indent=2))
    if options.report:
        write(found, Path(options.report))
    return 1 if tally.mismatches else 0


def run(seed: int, first: int, end: int, until: float) -> Tally:
    """The inputs from `first` up to `end`, as far as the time goes, in a database of their own."""
    tally = Tally()
    with _database() as url, tempfile.TemporaryDirectory() as folder, in_process(Path(folder), url) as inside:
        for start in range(first, end, TOGETHER):
            if time.time() > until:
                break
            judge(inside, [(n, csv_inputs.make(seed, n)) for n in range(start, min(start + TOGETHER, end))], tally)
            if (start - first) % (20 * TOGETHER) == 0:
                print(f"from {first:,}: {tally.inputs:,} inputs, mismatches: {tally.mismatches[:SHOWN]}", flush=True)
    return tally


def write(found: dict[str, Any], folder: Path) -> None:
    """csv.json and csv.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "csv.json").write_text(json.dumps(found, indent=2) + "\n")
    lines = [
        "# Fuzzed CSV inputs",
        "",
        f"{found['inputs']:,} inputs of seed {found['seed']} with {found['rows']:,} rows, in {found['seconds']:,} s: "
        f"**{len(found['mismatches'])} mismatches**.",
        "",
        "Each was submitted, scored, and compared with what Python's csv module reads: every record became one score or "
        "one row error, with its own key and line, the score is the one that its cells say, and the job's counters agree. "
        "A refusal must give a reason that is so. `make fuzz` makes this report.",
    ]
    for title, name in (("inputs of a class", "kinds"), ("outcome", "outcomes"), ("row error", "row_errors")):
        lines += ["", f"| {title} | count |", "| --- | ---: |"]
        lines += [f"| {key} | {count:,} |" for key, count in sorted(found[name].items(), key=lambda each: -each[1])]
    (folder / "csv.md").write_text("\n".join(lines) + "\n")


def _report(tally: Tally, seed: int, seconds: float) -> dict[str, Any]:
    return {
        "seed": seed,
        "inputs": tally.inputs,
        "rows": tally.rows,
        "seconds": round(seconds),
        "mismatches": tally.mismatches[:SHOWN],
        "kinds": dict(tally.kinds),
        "outcomes": dict(tally.outcomes),
        "row_errors": dict(tally.codes),
    }


@contextmanager
def _database() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        postgres = Postgres(Path(folder) / "postgres", durable=False)
        postgres.start()
        try:
            upgrade(postgres.url)
            yield postgres.url
        finally:
            postgres.discard()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="fuzz the CSV path")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600, help="stop after this long, whatever is left")
    parser.add_argument("--only", type=int, help="run this input alone")
    parser.add_argument("--report", help="a folder for csv.md and csv.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
