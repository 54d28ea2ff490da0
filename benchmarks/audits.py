"""What audits cost: ten million stored rows audited, SciPy and Evidently on the raw rows, a chunk's profile, a million labels.

    python -m benchmarks.audits --evidently

With --evidently, Evidently is installed from the package index into a temporary virtual environment; without, the report says
that it was not run. Writes benchmarks/reports/audits.json and audits.md, and exits 1 when a limit that is wanted is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import psutil

from benchmarks import drift_peers, label_upload, profile_cost, stored_rows
from benchmarks.bulk import REPORTS
from benchmarks.drift_peers import Evidently, SciPy
from benchmarks.label_upload import LabelUpload
from benchmarks.profile_cost import ProfileCost
from benchmarks.stored_rows import COLUMNS, StoredRows

SHIFT = 0.5  # deviations, of one column
# What, as measured, the limit, whether it is met.
Check = tuple[str, str, str, bool]


def main() -> int:
    given = _arguments()
    machine = _machine(given.workers)
    reference, current = stored_rows.raw(stored_rows.REFERENCE_ROWS, 0), stored_rows.raw(stored_rows.RAW_ROWS, 1, SHIFT)
    stored = stored_rows.measure(reference, current)
    scipy = drift_peers.scipy(reference, current)
    evidently = drift_peers.evidently(reference, current) if given.evidently else None
    cost = profile_cost.measure()
    labels = label_upload.measure(given.labels, given.workers)
    checks = _checks(stored, cost, labels)
    content = {
        "machine": machine,
        "stored_rows": asdict(stored) | {"rows": stored_rows.STORED_ROWS, "columns": len(COLUMNS)},
        "scipy": asdict(scipy),
        "evidently": None if evidently is None else asdict(evidently),
        "profile_cost": asdict(cost) | {"rows": profile_cost.ROWS, "share": cost.share},
        "labels": asdict(labels) | {"per_second": labels.per_second},
        "checks": [dict(zip(("what", "measured", "wanted", "met"), check, strict=True)) for check in checks],
    }
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "audits.json").write_text(json.dumps(content, indent=2) + "\n")
    (REPORTS / "audits.md").write_text(_markdown(machine, stored, scipy, evidently, cost, labels, checks))
    print((REPORTS / "audits.md").read_text())
    return 0 if all(met for *_, met in checks) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--evidently", action="store_true", help="install Evidently somewhere temporary and run it too")
    parser.add_argument("--labels", type=int, default=1_000_000, help="predictions, and labels for them")
    parser.add_argument("--workers", type=int, default=2, help="workers of the stack that the labels are sent to")
    return parser.parse_args()


def _machine(workers: int) -> dict[str, Any]:
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "workers": workers,
        "load_before": round(os.getloadavg()[0], 1),  # what else the machine was doing
        "measured_at": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def _checks(stored: StoredRows, cost: ProfileCost, labels: LabelUpload) -> list[Check]:
    whole = stored.roll_up_seconds + stored.audit_seconds[0]
    return [
        (
            f"roll-up and audit of {stored_rows.STORED_ROWS:,} rows",
            f"{whole:.2f} s",
            f"under {stored_rows.WANTED_SECONDS:g} s",
            whole < stored_rows.WANTED_SECONDS,
        ),
        (
            "memory of both",
            f"{stored.extra_mib:.0f} MiB",
            f"under {stored_rows.WANTED_MIB:g} MiB",
            stored.extra_mib < stored_rows.WANTED_MIB,
        ),
        (
            "a chunk's profile beside its parsing and scoring",
            f"{cost.share:.1%}",
            f"at most {profile_cost.WANTED_SHARE:.0%}",
            cost.share <= profile_cost.WANTED_SHARE,
        ),
        (
            "labels uploaded",
            f"{labels.per_second:,.0f} a second",
            f"at least {label_upload.WANTED_PER_SECOND:,} a second",
            labels.per_second >= label_upload.WANTED_PER_SECOND,
        ),
    ]


def _markdown(  # noqa: PLR0917 - each part of the report
    machine: dict[str, Any],
    stored: StoredRows,
    scipy: SciPy,
    evidently: Evidently | None,
    cost: ProfileCost,
    labels: LabelUpload,
    checks: list[Check],
) -> str:
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items())
    audit = stored.typical_seconds
    apart = max(abs(scipy.distances[name] - stored.distances[name]) for name in COLUMNS)
    whole = stored.profile_seconds + stored.roll_up_seconds + audit
    beside = [
        f"| Scorehouse: the audit | {stored_rows.STORED_ROWS:,} | {audit:.3f} | {stored.extra_mib:.0f} | 1 |",
        f"| Scorehouse: counting {stored_rows.RAW_ROWS:,} rows, roll-up and audit | {stored_rows.RAW_ROWS:,} "
        f"| {whole:.2f} | | {whole / audit:.0f} |",
        f"| SciPy `ks_2samp` per column | {scipy.rows:,} | {scipy.seconds:.2f} | | {scipy.seconds / audit:.0f} |",
    ]
    if evidently is not None:
        beside.append(
            f"| Evidently {evidently.version} `DataDriftPreset` | {evidently.rows:,} | {evidently.seconds:.2f} "
            f"| {evidently.extra_mib:.0f} | {evidently.seconds / audit:.0f} |"
        )
    verdict = (
        "Evidently was not run."
        if evidently is None
        else f"Evidently calls {evidently.drifted} of {len(COLUMNS)} columns drifted. On the same raw rows it takes "
        f"{evidently.seconds / whole:.0f} times as long as counting, roll-up and audit together."
    )
    return "\n".join(
        [
            "# What audits cost", "", f"Machine: {told}.", "",
            "| what | measured | wanted | met |", "| --- | ---: | ---: | --- |",
            *(f"| {what} | {measured} | {wanted} | {'yes' if met else 'NO'} |" for what, measured, wanted, met in checks),
            "", "## A drift audit", "",
            f"{stored_rows.CHUNKS * stored_rows.REPEATS} chunks of {stored_rows.CHUNK_ROWS:,} rows and {len(COLUMNS)} numeric columns, "
            f"which are {stored_rows.CHUNKS} profiles ({stored.profile_bytes:,} bytes each) stored {stored_rows.REPEATS} times, over "
            f"24 hours, against a reference of {stored_rows.REFERENCE_ROWS:,} rows. The roll-up takes {stored.roll_up_seconds:.2f} s, the "
            f"first audit of a process {stored.audit_seconds[0]:.3f} s, the median of {stored_rows.AUDITS} is {audit:.3f} s; the process had "
            f"{stored.before_mib:.0f} MiB before and at most {stored.extra_mib:.0f} MiB more. The peers read the raw rows of those "
            f"{stored_rows.CHUNKS} chunks and the same reference; counting them costs {stored.profile_seconds:.2f} s, once, when they "
            "are scored.", "",
            "| what | rows | seconds | further MiB | times the audit's seconds |", "| --- | ---: | ---: | ---: | ---: |", *beside, "",
            f"One column has moved by {SHIFT:g} deviations, and the audit tells that one and no other. Its distances are those of "
            f"`ks_2samp` to {apart:.1e}. {verdict}", "",
            "## A chunk's profile", "",
            f"{profile_cost.ROWS:,} customers with 8 features, gradient boosting, one thread, medians of {profile_cost.REPEATS}: parsing "
            f"{cost.parse_seconds * 1000:.1f} ms, scoring {cost.score_seconds * 1000:.1f} ms, profile {cost.profile_seconds * 1000:.1f} ms "
            f"and {cost.profile_bytes:,} bytes: {cost.share:.1%}.", "",
            "## Labels", "",
            f"{labels.rows:,} labels in a CSV of {labels.file_bytes / 1e6:.1f} MB over HTTP, after as many predictions: "
            f"{labels.upload_seconds:.1f} s, {labels.per_second:,.0f} labels a second; all of them find their prediction. The accuracy audit that follows "
            f"takes {labels.audit_seconds:.1f} s from the request to the result; the same file once more "
            f"{labels.again_seconds:.1f} s.", "",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
