"""What a claim costs while chunks are queued, and how long a tenant waits behind the jobs of another.

    python -m benchmarks.claims [--against ../before]

Fills a database of its own with `--chunks` jobs of one queued chunk, in each lane, of 1, 10 and 100 tenants, and claims as workers do:
one chunk at a time of the bulk lane, up to 256 singles of the interactive one, and of a lane that is empty. With another checkout the same is done
by its code, and rounds of the one and of the other take turns. Writes benchmarks/reports/claims.json and claims.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine

import migrations
from db import chunks
from db.engine import create_engine, transaction
from embedded.postgres import Postgres

REPORTS = Path(__file__).with_name("reports")
HERE = Path(__file__).parents[1]
TENANTS = (1, 10, 100)
SINGLES = 256

VERSION = """
    INSERT INTO model (tenant, name) VALUES ('t0', 'm');
    INSERT INTO model_version (model_id, version, state, digest, reference_digest, format, runtime, size, trusted, created_by)
    SELECT id, '1.0.0', 'registered', 'sha256:0', 'sha256:1', 'skops', 'sklearn', 1, false, 'benchmark' FROM model;
"""
# The ids are in the order of the tenants' turns: the first tenant's jobs come first, as those of one that floods the others.
JOBS = """
    INSERT INTO job (id, tenant, version_id, kind, lane, priority, format, columns, created_by, state, rows_total, chunks_total, chunks_left)
    SELECT (lpad(to_hex(:base + n), 8, '0') || '-0000-7000-8000-000000000000')::uuid, 't' || (n * :tenants / :count), v.id, :kind, :lane, 1,
           'ndjson', '{x}', 'benchmark', 'queued', 1, 1, 1
    FROM generate_series(0, :count - 1) AS n, model_version AS v
"""
QUEUED = """
    INSERT INTO chunk (job_id, number, lane, priority, version_id, first_row, rows, first_line, payload)
    SELECT id, 0, lane, 1, version_id, 1, 1, 1, convert_to(repeat('x', 200), 'UTF8') FROM job
"""


def main() -> int:
    given = _arguments()
    if given.measure:
        print(json.dumps(measure(given.measure, given.chunks, given.claims)))
        return 0
    trees = {"here": HERE, **({"before": given.against.resolve()} if given.against else {})}
    rounds: list[dict[str, Any]] = []
    for number in range(given.rounds):
        for tenants in TENANTS:
            for name in sorted(trees, reverse=number % 2 == 0):
                rounds.append({"code": name, "tenants": tenants, **_measured(trees[name], tenants, given)})
                print(json.dumps(rounds[-1]), flush=True)
    _write(rounds, given)
    return 0


def measure(tenants: int, count: int, claims: int) -> dict[str, float]:
    """Milliseconds per claim, and how many claims of the bulk lane came before one of the last tenant's was served."""
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as folder:
        postgres = Postgres(Path(folder) / "postgres")
        postgres.start()
        try:
            migrations.upgrade(postgres.url)
            engine = create_engine(postgres.url, name="benchmark", role=None)
            _fill(engine, tenants, count)
            found = {"empty": _times(lambda: _claim(engine, "nothing", 1), claims)}
            waited, bulk = 0, []
            while len(bulk) < claims:
                began = time.perf_counter()
                (item,) = _claim(engine, "bulk", 1)
                bulk.append(1000 * (time.perf_counter() - began))
                waited = waited or (len(bulk) if item.tenant == f"t{tenants - 1}" else 0)
            found["bulk"] = bulk
            found["singles"] = _times(lambda: _claim(engine, "interactive", SINGLES), claims // 10)
            engine.dispose()
        finally:
            postgres.discard()
    quantiles = {name: statistics.quantiles(times, n=100) for name, times in found.items()}
    return {
        **{f"{name}_p50": values[49] for name, values in quantiles.items()},
        **{f"{name}_p99": values[98] for name, values in quantiles.items()},
        "claims_until_the_last_tenant": waited,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", type=Path, help="checkout to compare with")
    parser.add_argument("--chunks", type=int, default=100_000, help="queued in each lane")
    parser.add_argument("--claims", type=int, default=1000, help="of each kind in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", type=int, metavar="TENANTS", help="one round, as JSON on standard output")
    return parser.parse_args()


def _measured(tree: Path, tenants: int, given: argparse.Namespace) -> dict[str, float]:
    """A round by the code of a checkout: it comes before what is installed. This file itself is always that of here."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", str(tenants), "--chunks", str(given.chunks), "--claims", str(given.claims)],
        env={**os.environ, "PYTHONPATH": f"{tree}:{tree / 'client'}"}, capture_output=True, text=True, check=False, cwd=tree,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"a round with {tree} failed:\n{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _fill(engine: Engine, tenants: int, count: int) -> None:
    with transaction(engine) as connection:
        connection.execute(sa.text(VERSION))
        for base, lane, kind in ((0, "bulk", "batch"), (count, "interactive", "single")):
            parameters = {"base": base, "lane": lane, "kind": kind, "tenants": tenants, "count": count}
            connection.execute(sa.text(JOBS), parameters)
        connection.execute(sa.text(QUEUED))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE chunk, job"))


def _claim(engine: Engine, lane: str, count: int) -> list[chunks.Claim]:
    return chunks.claim(engine, lane=lane, count=count, owner="benchmark", lease_seconds=3600)


def _times(call: Callable[[], Any], count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return times


def _write(rounds: list[dict[str, Any]], given: argparse.Namespace) -> None:
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "claims.json").write_text(
        json.dumps({"options": vars(given), "rounds": rounds}, indent=2, default=str) + "\n"
    )
    names = [name for name in rounds[0] if name not in {"code", "tenants"}]
    lines = [
        f"# Claims beside {given.chunks:,} queued chunks in each lane",
        "",
        f"Medians of {given.rounds} rounds, milliseconds per claim. bulk: one chunk; singles: up to {SINGLES}; empty: of a lane without chunks. "
        "The first tenant's jobs were all submitted before the last one's.",
        "",
        f"| code | tenants | {' | '.join(name.replace('_', ' ') for name in names)} |",
        f"| --- | ---: |{' ---: |' * len(names)}",
    ]
    for tenants in TENANTS:
        for code in sorted({each["code"] for each in rounds}, reverse=True):
            mine = [each for each in rounds if (each["code"], each["tenants"]) == (code, tenants)]
            cells = [statistics.median(each[name] for each in mine) for name in names]
            shown = [f"{cell:.2f}" if "_p" in name else f"{cell:.0f}" for name, cell in zip(names, cells, strict=True)]
            shown = ["not in the round" if text == "0" else text for text in shown]
            lines.append(f"| {code} | {tenants} | {' | '.join(shown)} |")
    (REPORTS / "claims.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
