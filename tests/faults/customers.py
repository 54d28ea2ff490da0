"""Files of customers to score, what a single process makes of them, and the model as the workers get it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from marked import MARK, Marked
from verdict import Expected

from examples import package
from examples.churn.data import COLUMNS, customers

TRAINED_ON = 4_000


@dataclass(frozen=True)
class File:
    """A CSV file, and the prediction or row error that each of its rows must end as."""

    body: bytes
    expected: Expected


class Customers:
    """A fitted pipeline and customers that it has not seen; the same in every session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reference = folder / "reference.csv"
        self._files: dict[int, tuple[pd.DataFrame, File]] = {}
        self._labelled.to_csv(self.reference, index=False)

    def artefact(self, seconds_per_row: float) -> Path:
        """The model as a file to register; each pace has another digest."""
        path = self.folder / f"marked-{seconds_per_row}.joblib"
        joblib.dump(Marked(self.pipeline, seconds_per_row), path)
        return path

    @cached_property
    def pipeline(self) -> Any:
        with package.one_thread():
            return package.logistic(COLUMNS).fit(self._labelled[COLUMNS.features], self._labelled[COLUMNS.label])

    def file(self, rows: int, marks: Mapping[int, tuple[int, str]] = {}) -> File:
        """The first `rows` customers.

        Args:
            marks: by row number, the mark that the row bears and the code of the row error that it must end as.
        """
        if rows not in self._files:
            frame = customers(rows, seed=1).drop(columns=COLUMNS.label)
            self._files[rows] = (frame, self._file(frame))
        frame, file = self._files[rows]
        if not marks:
            return file
        frame = frame.copy()
        for row, (mark, _) in marks.items():
            frame.loc[row - 1, MARK] = mark
        expected = Expected(
            file.expected.predictions, file.expected.probabilities, {row: code for row, (_, code) in marks.items()}
        )
        return File(_csv(frame), expected)

    def record(self, row: int) -> dict[str, Any]:
        """A customer as JSON."""
        record: dict[str, Any] = json.loads(customers(row, seed=1).drop(columns=COLUMNS.label).iloc[-1].to_json())
        return record

    def _file(self, frame: pd.DataFrame) -> File:
        with package.one_thread():
            probabilities = self.pipeline.predict_proba(frame[COLUMNS.features])[:, 1]
            labels = self.pipeline.predict(frame[COLUMNS.features]).astype(str)
        return File(_csv(frame), Expected(np.asarray(labels, dtype=object), probabilities, {}))

    @cached_property
    def _labelled(self) -> pd.DataFrame:
        return customers(TRAINED_ON)


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()
