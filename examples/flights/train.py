"""Train on January to March, and write what `scorehouse models register` and `scorehouse score` need.

    python -m examples.flights.train --out build/flights

writes flights.joblib and flights.skops (gradient boosting), flights-logistic.joblib and .skops, reference.csv, metrics.json,
and april.csv: every flight that was due to leave in April, with its key and features and without its label.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from examples import package
from examples.flights.data import COLUMNS, flights


def train(out: Path) -> dict[str, dict[str, float]]:
    """Fit both pipelines, write every file into `out`, and return the metrics of the hold-out by pipeline.

    The hold-out is the last fifth of the three months; what is written was then fitted on all of them.

    Raises:
        NotFound: the package with the data is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    every = flights([1, 2, 3, 4])
    april = every["flight_id"].str.startswith("2013-04")
    labelled = every[~april & every["late"].notna()]
    metrics = {}
    for name, build in {"flights": package.gradient_boosting, "flights-logistic": package.logistic}.items():
        pipeline = build(COLUMNS)
        with package.one_thread():
            metrics[name] = package.hold_out_metrics(pipeline, labelled, COLUMNS)
            pipeline.fit(labelled[COLUMNS.features], labelled[COLUMNS.label].astype(int))
        package.write_artefacts(pipeline, out, name)
    package.write_reference(labelled, out, COLUMNS)
    package.write_metrics(metrics, out)
    every[april].drop(columns=COLUMNS.label).to_csv(out / "april.csv", index=False)
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    print(json.dumps(train(parser.parse_args().out), indent=2))


if __name__ == "__main__":
    main()
