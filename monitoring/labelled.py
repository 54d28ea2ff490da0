"""Counting labelled predictions: each day that changed is read once more, and its counters stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from sqlalchemy import Engine

from db import audits, labels
from db.audits import Policy
from db.engine import transaction
from monitoring.outcomes import Outcomes, merge, outcomes_of
from registry.signature import Output

# Rows of about 30 bytes: some ten thousands at a time are counted together.
_BATCH_BYTES = 4 * 1024 * 1024
_COLUMNS = ("prediction", "probability", "label", "at")
_TYPES = {
    "prediction": pa.string(),
    "probability": pa.float64(),
    "label": pa.string(),
    "at": pa.timestamp("us", "UTC"),
}


def count_dirty_days(engine: Engine, model_id: int, version_id: int, output: Output) -> int:
    """Count the labelled predictions of every day of a version that changed; returns how many days.

    A day becomes clean in the transaction that stores its count, unless a label that came in the meantime marked it.
    """
    with transaction(engine) as connection:
        policy = audits.policy(connection, model_id)
        if policy.horizon_days is not None:
            labels.mark_matured(connection, version_id, policy.horizon_days)
        days = labels.dirty_days(connection, version_id)
    for day in days:
        with transaction(engine) as connection:
            begun = labels.begin_count(connection, version_id, day)
            counter = _Counter(output, audits.policy(connection, model_id), begun.at)  # a change of it marks all days
            labels.export_labelled(connection, model_id, version_id, day, counter.write, _classes(output))
            counter.flush()
            labels.put_count(
                connection,
                version_id,
                day,
                begun,
                scored=counter.scored,
                labelled=counter.labelled,
                outcomes=counter.total.to_json(),
            )
    return len(days)


class _Counter:
    """Takes CSV in pieces of any size, and counts whole lines."""

    def __init__(self, output: Output, policy: Policy, now: datetime) -> None:
        self._output = output
        self._horizon: Callable[[Any], Any] | None = None
        if policy.horizon_days is not None:
            self._over = now - timedelta(days=policy.horizon_days)
            self._negative = policy.negative_label
            self._horizon = self._with_negatives
        self._parts: list[bytes] = []
        self._size = 0
        self.scored = 0
        self.labelled = 0
        self.total = no_outcomes(output)

    def write(self, block: bytes) -> None:
        self._parts.append(block)
        self._size += len(block)
        if self._size >= _BATCH_BYTES:
            data = b"".join(self._parts)
            end = data.rfind(b"\n") + 1
            while data.count(b'"', 0, end) % 2:  # in the middle of a text, which may have several lines
                end = data.rfind(b"\n", 0, end - 1) + 1
            self._count(data[:end])
            self._parts = [data[end:]]
            self._size = len(data) - end

    def flush(self) -> None:
        self._count(b"".join(self._parts))
        self._parts, self._size = [], 0

    def _count(self, data: bytes) -> None:
        if not data:
            return
        table = pacsv.read_csv(
            pa.BufferReader(data),
            read_options=pacsv.ReadOptions(column_names=list(_COLUMNS), use_threads=False),
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=_TYPES, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
        self.scored += table.num_rows
        if self._horizon is not None:
            table = self._horizon(table)
        known = table.filter(pc.is_valid(table["label"]))
        self.labelled += known.num_rows
        if known.num_rows:
            self.total = merge([self.total, _outcomes(self._output, known)])

    def _with_negatives(self, table: Any) -> Any:
        """No event within the horizon is the negative label."""
        old = pc.less(table["at"], pa.scalar(self._over, pa.timestamp("us", "UTC")))
        silent = pc.and_(pc.is_null(table["label"]), old)
        filled = pc.if_else(silent, pa.scalar(self._negative), table["label"])
        return table.set_column(table.column_names.index("label"), "label", filled)


def no_outcomes(output: Output) -> Outcomes:
    """Of no rows at all."""
    return outcomes_of(output, [], np.empty(0) if output.has_probability else None, None, [])


def _outcomes(output: Output, known: Any) -> Outcomes:
    probability = known["probability"].to_numpy() if output.has_probability else None
    return outcomes_of(output, known["prediction"].to_pylist(), probability, None, known["label"].to_pylist())


def _classes(output: Output) -> list[str]:
    """The classes whose probabilities are stored apart: none of a binary model, as labels name them."""
    return [str(label) for label in output.classes or ()] if output.has_probability and output.positive is None else []
