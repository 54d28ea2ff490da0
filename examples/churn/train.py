"""Train on generated customers, and write what `scorehouse models register` and `scorehouse score` need.

    python -m examples.churn.train --out build/churn

writes churn.joblib and churn.skops (gradient boosting), churn-logistic.joblib and .skops, churn-dict.joblib (the logistic one as
the dict `{model, preprocessor, feature_names}`), reference.csv, metrics.json, and customers.csv: new customers to score.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import joblib
from sklearn.pipeline import Pipeline

from examples import package
from examples.churn.data import COLUMNS, customers


def train(out: Path, rows: int = 30_000, to_score: int = 10_000, seed: int = 0) -> dict[str, dict[str, float]]:
    """Fit both pipelines on `rows` customers, write every file into `out`, and return the hold-out's metrics by pipeline.

    `customers.csv` holds the `to_score` customers that come after those, without their label.
    """
    out.mkdir(parents=True, exist_ok=True)
    every = customers(rows + to_score, seed)
    labelled = every.iloc[:rows]
    metrics = {}
    for name, build in {"churn": package.gradient_boosting, "churn-logistic": package.logistic}.items():
        pipeline = build(COLUMNS)
        with package.one_thread():
            metrics[name] = package.hold_out_metrics(pipeline, labelled, COLUMNS)
            pipeline.fit(labelled[COLUMNS.features], labelled[COLUMNS.label])
        package.write_artefacts(pipeline, out, name)
    joblib.dump(as_dict(pipeline), out / "churn-dict.joblib")
    package.write_reference(labelled, out, COLUMNS)
    package.write_metrics(metrics, out)
    every.iloc[rows:].drop(columns=COLUMNS.label).to_csv(out / "customers.csv", index=False)
    return metrics


def as_dict(pipeline: Pipeline) -> dict[str, object]:
    """The other accepted form of an artefact: preprocessing and model apart, and the names of the features."""
    return {"model": pipeline[-1], "preprocessor": pipeline[:-1], "feature_names": COLUMNS.features}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    parser.add_argument("--rows", type=int, default=30_000, help="customers to train on")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other customers")
    given = parser.parse_args()
    print(json.dumps(train(given.out, given.rows, seed=given.seed), indent=2))


if __name__ == "__main__":
    main()
