"""Drift: how often it is told where there is none, how often where there is some, and what profiles and audits cost.

    python -m benchmarks.drift

Everything is drawn from seeds, so the counts come out the same on every machine; the times do not. Writes
benchmarks/reports/drift.json and drift.md, and exits 1 when a false alarm is raised, the power is below 95 %, or a
profile costs more than 15 % of the scoring of its chunk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.progress import track
from threadpoolctl import threadpool_limits

from benchmarks.bulk import REPORTS
from benchmarks.files import SEED, model_files
from examples.churn.data import COLUMNS, customers
from monitoring.drift import drift, exact_ks
from monitoring.profile import Profile, from_bytes, merge, profile_of
from monitoring.schema import ProfileSchema, schema_of
from registry.examine import examine
from registry.model_input import to_model_input
from registry.parse import parse_csv
from registry.runtime import Scores, load
from registry.scoring import score
from registry.signature import Column, ColumnType, Output, Signature

REFERENCE_ROWS = 20_000
WINDOW_ROWS = 1_000
SHIFT = 0.35
CHUNK_ROWS = 30_000
REPEATS = 20
BINARY = Output(kind="classification", classes=[0, 1], class_type="integer", positive=1, has_probability=True)
#: The 20 columns of a window: how many of each kind.
KINDS: dict[str, tuple[ColumnType, int]] = {
    "normal": ("number", 5),
    "skewed": ("number", 4),
    "count": ("integer", 3),
    "sparse": ("number", 2),
    "category": ("category", 4),
    "flag": ("boolean", 2),
}


def main() -> int:
    given = _arguments()
    signature = Signature(
        columns=[
            Column(name=f"{kind}_{number}", type=type, nullable=True)
            for kind, (type, count) in KINDS.items()
            for number in range(count)
        ],
        output=BINARY,
    )
    reference = _window(REFERENCE_ROWS, 0)
    schema = schema_of(signature, *reference)
    profile = profile_of(schema, *reference, [])
    with threadpool_limits(1):  # as in a worker
        measured = {
            "false_alarms": _false_alarms(schema, profile, given.windows),
            "power": _power(schema, profile, given.windows),
            "profile": _profile_cost(),
            "audit": _audit_cost(schema, profile, given.chunks, given.scipy_rows),
        }
    _write(measured)
    good = (
        measured["false_alarms"]["windows_not_ok"] == 0
        and measured["power"]["share"] >= 0.95
        and measured["profile"]["share"] <= 0.15
    )
    return 0 if good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--windows", type=int, default=200, help="windows of each simulation")
    parser.add_argument("--chunks", type=int, default=340, help="chunks of 30,000 rows in the large audit")
    parser.add_argument("--scipy-rows", type=int, default=1_000_000, help="rows that ks_2samp gets per column")
    return parser.parse_args()


# ---- windows


def _window(rows: int, seed: int, shift: float = 0.0) -> tuple[pa.Table, Scores]:
    """Features and scores of one seed; `shift` moves the first column, in standard deviations."""
    random = np.random.default_rng([SEED, seed])
    columns = {
        f"{kind}_{number}": _cells(kind, number, rows, random)
        for kind, (_, count) in KINDS.items()
        for number in range(count)
    }
    columns["normal_0"] = pa.array(columns["normal_0"].to_numpy() + shift)
    positive = random.beta(1, 4, rows)
    return pa.table(columns), Scores((positive > 0.5).astype(np.int64), np.column_stack([1 - positive, positive]))


def _cells(kind: str, number: int, rows: int, random: np.random.Generator) -> Any:
    if kind == "normal":
        return pa.array(random.normal(0, 1, rows))
    if kind == "skewed":
        return pa.array(random.lognormal(3, 1, rows))
    if kind == "count":
        return pa.array(random.poisson(3 * 10**number, rows).astype(float))
    if kind == "sparse":  # a tenth are null, and of the others half are zero
        values = np.where(random.random(rows) < 0.5, 0.0, random.gamma(2, 50, rows))
        return pa.array(values, mask=random.random(rows) < 0.1)
    if kind == "flag":
        return pa.array(random.random(rows) < 0.3)
    words = [f"word {at}" for at in range(3 * 2**number)]  # 3, 6, 12 and 24 of them, some rare
    shares = 1.0 / np.arange(1, len(words) + 1)
    indices = random.choice(len(words), rows, p=shares / shares.sum())
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(words))


# ---- verdicts


def _false_alarms(schema: ProfileSchema, reference: Profile, windows: int) -> dict[str, Any]:
    found = [
        drift(schema, reference, profile_of(schema, *_window(WINDOW_ROWS, 1 + number), []))
        for number in track(range(windows), "windows without drift")
    ]
    checks = [check for one in found for check in one.columns]
    return {
        "windows": windows,
        "rows": WINDOW_ROWS,
        "columns": len(schema.columns),
        "windows_not_ok": sum(one.status != "ok" for one in found),
        "checks": len(checks),
        "checks_not_ok": sum(check.status != "ok" for check in checks),
        "significant_checks": sum(check.significant for check in checks),
        "largest_ks": max(check.value for check in checks if check.statistic == "ks" and check.value is not None),
        "largest_psi": max(check.value for check in checks if check.statistic == "psi" and check.value is not None),
    }


def _power(schema: ProfileSchema, reference: Profile, windows: int) -> dict[str, Any]:
    told = 0
    for number in track(range(windows), "windows with a shift"):
        current = profile_of(schema, *_window(WINDOW_ROWS, 1_000_000 + number, SHIFT), [])
        checks = drift(schema, reference, current).columns
        told += any(
            (check.name, check.statistic) == ("normal_0", "ks") and check.status in ("warn", "critical")
            for check in checks
        )
    return {"windows": windows, "rows": WINDOW_ROWS, "shift": SHIFT, "told": told, "share": told / windows}


# ---- times


def _profile_cost() -> dict[str, Any]:
    """Milliseconds of a chunk of the churn model: the profile, beside the model alone and all of the scoring."""
    artefact, sample = model_files("histgb")
    digest = f"sha256:{hashlib.sha256(artefact.read_bytes()).hexdigest()}"
    found = examine(
        artefact, format="joblib", digest=digest, reference=sample, key=COLUMNS.key, target=COLUMNS.label
    ).signature
    runtime = load(artefact, format="joblib", digest=digest)
    parsed = _parsed(customers(2 * CHUNK_ROWS, SEED + 2)[COLUMNS.features][CHUNK_ROWS:], found)
    before = _parsed(pd.read_csv(sample)[COLUMNS.features], found)
    schema = schema_of(found, before.features, runtime.predict(to_model_input(before.features, found)))
    scored = score(runtime, parsed, found)
    scores = Scores(scored.prediction, scored.probabilities)
    profiling = _milliseconds(lambda: profile_of(schema, parsed.features, scores, scored.errors))
    packing = _milliseconds(profile_of(schema, parsed.features, scores, scored.errors).to_bytes)
    scoring = _milliseconds(lambda: score(runtime, parsed, found))
    return {
        "rows": CHUNK_ROWS,
        "columns": len(found.columns),
        "profile_ms": profiling,
        "to_bytes_ms": packing,
        "scoring_ms": scoring,
        "share": (profiling + packing) / scoring,
        "bytes": len(profile_of(schema, parsed.features, scores, scored.errors).to_bytes()),
        "schema_bytes": len(schema.model_dump_json()),
    }


def _parsed(rows: pd.DataFrame, signature: Signature) -> Any:
    return parse_csv(
        rows.to_csv(index=False, header=False).encode(),
        header=list(rows.columns),
        delimiter=",",
        signature=signature,
        key_column=None,
        first_row=1,
        first_line=2,
        max_cell_chars=10_000,
    )


def _milliseconds(work: Callable[[], Any]) -> float:
    """The median of some repeats."""
    return 1000 * statistics.median(_seconds(work) for _ in range(REPEATS))


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _audit_cost(schema: ProfileSchema, reference: Profile, chunks: int, scipy_rows: int) -> dict[str, Any]:
    """Seconds from stored profiles to a verdict, beside `ks_2samp` on the values of as many columns."""
    stored = list(_stored(schema, chunks))
    audits = [
        _seconds(lambda: drift(schema, reference, merge(from_bytes(schema, data) for data in stored))) for _ in range(5)
    ]
    random = np.random.default_rng(SEED)
    sample = random.normal(0, 1, REFERENCE_ROWS)
    columns = sum(count for _, count in KINDS.values())
    exact = 0.0
    for _ in track(range(columns), "ks_2samp"):
        values = random.normal(0, 1, scipy_rows)
        exact += _seconds(lambda values=values: exact_ks(sample, values))  # type: ignore[misc]  # bound now
    return {
        "chunks": chunks,
        "rows": chunks * CHUNK_ROWS,
        "columns": columns,
        "stored_bytes": sum(map(len, stored)),
        "seconds": statistics.median(audits),
        "scipy_rows": scipy_rows,
        "scipy_seconds": exact,
    }


def _stored(schema: ProfileSchema, chunks: int) -> Iterator[bytes]:
    for number in track(range(chunks), "chunks of the large audit"):
        yield profile_of(schema, *_window(CHUNK_ROWS, 2_000_000 + number), []).to_bytes()


# ---- report


def _write(measured: dict[str, Any]) -> None:
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "drift.json").write_text(json.dumps(measured, indent=2) + "\n")
    alarms, power, cost, audit = (measured[name] for name in ("false_alarms", "power", "profile", "audit"))
    lines = [
        "# Drift: verdicts and costs", "",
        f"The reference has {REFERENCE_ROWS:,} rows. Times are medians, in one thread, of whatever machine ran this.", "",
        "| question | answer | wanted |", "| --- | ---: | ---: |",
        f"| false alarms in {alarms['windows']} windows without drift, {alarms['rows']:,} rows x {alarms['columns']} columns "
        f"(outputs included) | {alarms['windows_not_ok']} | 0 |",
        f"| checks of those windows that were not ok, of {alarms['checks']:,} | {alarms['checks_not_ok']} | |",
        f"| a column shifted by {power['shift']} standard deviations told, in {power['windows']} windows of {power['rows']:,} rows "
        f"| {power['share']:.1%} | ≥ 95 % |",
        f"| profile of a chunk of {cost['rows']:,} rows x {cost['columns']} columns, packed | "
        f"{cost['profile_ms'] + cost['to_bytes_ms']:.1f} ms | |",
        f"| scoring of that chunk by HistGradientBoosting | {cost['scoring_ms']:.0f} ms | |",
        f"| the profile's share of that | {cost['share']:.1%} | ≤ 15 % |",
        f"| size of that profile as stored; of the schema as JSON | {cost['bytes']:,}; {cost['schema_bytes']:,} bytes | |",
        f"| audit of {audit['rows']:,} rows x {audit['columns']} columns from {audit['chunks']} stored profiles "
        f"({audit['stored_bytes'] / 1e6:.1f} MB) | {audit['seconds']:.3f} s | |",
        f"| `scipy.stats.ks_2samp` on {audit['columns']} columns of {audit['scipy_rows']:,} rows, values in memory "
        f"| {audit['scipy_seconds']:.1f} s | |",
        "", f"Largest values without drift: D {alarms['largest_ks']:.3f}, PSI {alarms['largest_psi']:.3f}.", "",
    ]  # fmt: skip
    (REPORTS / "drift.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
