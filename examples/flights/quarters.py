"""Files to train a first version on one quarter, and its successor on the next one when the late labels have come.

    python -m examples.flights.quarters --out build/flights

writes first-quarter.csv (January to March: key, day, features and the label `late`), and for each month from April to June
2013-MM.csv (what is scored) and 2013-MM-labels.csv (what came true).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from examples.flights.data import COLUMNS, flights
from examples.flights.months import Month, write_months


def write_quarters(out: Path) -> list[Month]:
    """Write all files into `out`, and return the months of the second quarter.

    Raises:
        NotFound: the package with the data is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = flights([1, 2, 3])
    rows.insert(1, "day", rows[COLUMNS.key].str[:10])
    rows.to_csv(out / "first-quarter.csv", index=False)
    return list(write_months([4, 5, 6], out))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    for month in write_quarters(parser.parse_args().out):
        print(f"{month.inputs.name}: {month.rows:,} flights, {month.late:.1%} late")


if __name__ == "__main__":
    main()
