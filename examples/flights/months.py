"""The flights of a month as they come to be known: records when they leave, labels weeks later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from examples.flights.data import COLUMNS, YEAR, flights


@dataclass(frozen=True)
class Month:
    """A month of 2013: `inputs` is what is scored, `labels` what came true; flights that never arrived have no label."""

    number: int
    inputs: Path
    labels: Path
    rows: int
    late: float

    @property
    def middle(self) -> str:
        return f"{YEAR}-{self.number:02}-15"

    @property
    def end(self) -> str:
        """Where the month ends, and the next one begins."""
        return f"{YEAR}-{self.number + 1:02}-01" if self.number < 12 else f"{YEAR + 1}-01-01"


def write_months(numbers: Iterable[int], folder: Path) -> Iterator[Month]:
    """Write MONTH.csv and MONTH-labels.csv for each of the months."""
    every = flights(numbers)
    month_of = every[COLUMNS.key].str[5:7].astype(int)
    for number, rows in every.groupby(month_of):
        month = int(str(number))
        inputs, labels = folder / f"2013-{month:02}.csv", folder / f"2013-{month:02}-labels.csv"
        rows.drop(columns=COLUMNS.label).to_csv(inputs, index=False)
        known = rows[rows[COLUMNS.label].notna()]
        truth = known[[COLUMNS.key, COLUMNS.label]].rename(columns={COLUMNS.key: "key", COLUMNS.label: "label"})
        truth.assign(observed_at=known[COLUMNS.key].str[:10] + "T23:59:59Z").to_csv(labels, index=False)
        yield Month(month, inputs, labels, len(rows), float(known[COLUMNS.label].mean()))
