"""A million labels through HTTP, after the predictions that they are about, and the accuracy audit that follows."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv

from benchmarks.files import DATA, SEED, csv_file
from benchmarks.stack import client_of, deploy, model_name, running_stack, score
from examples.churn.data import COLUMNS, blocks

MODEL = "histgb"
WANTED_PER_SECOND = 60_000


@dataclass(frozen=True)
class LabelUpload:
    """Seconds of the upload, of the same upload once more, and of the audit from the request to its document."""

    rows: int
    file_bytes: int
    upload_seconds: float
    again_seconds: float
    audit_seconds: float
    counts: dict[str, Any]
    audit: dict[str, Any]

    @property
    def per_second(self) -> float:
        return self.rows / self.upload_seconds


def measure(rows: int, workers: int, data_dir: Path | None = None) -> LabelUpload:
    """
    Raises:
        RuntimeError: a label did not find its prediction, or the audit did not count it.
    """
    file, labels = csv_file(rows), label_file(rows)
    with running_stack(data_dir, workers) as stack, tempfile.TemporaryDirectory() as folder:
        deploy(stack, [MODEL])
        score(stack, file, MODEL, Path(folder) / "out.csv")
        with client_of(stack) as client:
            began = time.perf_counter()
            counts = client.upload_labels(labels, model_name(MODEL))
            uploaded = time.perf_counter()
            audit = client.audit(model_name(MODEL), "accuracy", window="2d")
            audited = time.perf_counter()
            client.upload_labels(labels, model_name(MODEL))
            again = time.perf_counter()
    if counts["matched"] != rows or audit["labelled"] != rows:
        raise RuntimeError(f"of {rows:,} labels not all were matched and counted: {counts}, {audit}")
    return LabelUpload(
        rows=rows,
        file_bytes=labels.stat().st_size,
        upload_seconds=uploaded - began,
        again_seconds=again - audited,
        audit_seconds=audited - uploaded,
        counts={name: count for name, count in counts.items() if name != "rejections"},
        audit={name: audit[name] for name in ("scored", "labelled", "coverage", "status", "metrics")},
    )


def label_file(rows: int) -> Path:
    """The truth about the customers of `benchmarks.files.csv_file(rows)`: a CSV of key and label."""
    path = DATA / f"labels-{rows}.csv"
    if path.exists():
        return path
    DATA.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.write(b"key,label\n")
        for block in blocks(rows, SEED):
            pacsv.write_csv(
                block.select([COLUMNS.key, COLUMNS.label]),
                file,
                pacsv.WriteOptions(include_header=False, quoting_style="none"),
            )
    return unfinished.rename(path)
