"""A fitted pipeline as an MLflow model in a folder, which `mlflow_script.py` and `mlflow models predict` load.

    python benchmarks/peers/mlflow_save.py MODEL REFERENCE FOLDER

The model answers probabilities, and has the signature of the reference's columns.
"""

from __future__ import annotations

import sys

import joblib
import mlflow
import pandas as pd
from mlflow.models import infer_signature


def main(model_file: str, reference: str, folder: str) -> None:
    model = joblib.load(model_file)
    rows = pd.read_csv(reference)[list(model.feature_names_in_)]
    mlflow.sklearn.save_model(
        model,
        folder,
        signature=infer_signature(rows, model.predict_proba(rows)),
        pyfunc_predict_fn="predict_proba",
        serialization_format="cloudpickle",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
