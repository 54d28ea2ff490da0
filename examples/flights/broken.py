"""A small file of real flights, some of them broken on purpose, to see that one bad row costs one row error."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from examples.flights.data import COLUMNS

ROWS = 12
NEEDED = ("dep_delay", "plane_age", "temp")

Record = dict[str, str]
Damage = Callable[[Record], list[str]]


def _replaced(column: str, text: str) -> Damage:
    return lambda record: list({**record, column: text}.values())


DAMAGES: dict[int, tuple[str | None, Damage]] = {
    3: ("dep_delay", _replaced("dep_delay", "twenty")),
    5: ("dep_delay", _replaced("dep_delay", "")),
    6: ("temp", _replaced("temp", "inf")),
    8: (None, lambda record: list(record.values())[:-2]),
    10: (None, lambda record: [*record.values(), "surplus"]),
}
"""What is done to which row (from 1), and the column at fault; None when it is the row as a whole."""


def write_broken(april: Path, out: Path) -> dict[int, str | None]:
    """Write the first complete flights of `april` to `out`, damaged as `DAMAGES` says.

    Returns:
        The column at fault of each row that must become a row error, by row number.
    """
    with april.open(newline="") as source, out.open("w", newline="") as target:
        complete = (record for record in csv.DictReader(source) if all(record[name] for name in NEEDED))
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow([COLUMNS.key, *COLUMNS.features])
        for number, record in enumerate(islice(complete, ROWS), start=1):
            writer.writerow(DAMAGES[number][1](record) if number in DAMAGES else record.values())
    return {number: column for number, (column, _) in DAMAGES.items()}
