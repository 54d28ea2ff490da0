"""Bulk scoring with an MLflow model as a Python function: read, predict, write, in one process.

    python benchmarks/peers/mlflow_script.py FILE MODEL_FOLDER OUT

prints its times in seconds as JSON; `work` is without the imports and the model's loading.
"""

from __future__ import annotations

import json
import sys
import time

import mlflow.pyfunc
import pandas as pd

KEY = "customer_id"


def main(file: str, model_folder: str, out: str) -> dict[str, float]:
    model = mlflow.pyfunc.load_model(model_folder)
    began = time.perf_counter()
    rows = pd.read_csv(file)
    probability = model.predict(rows.drop(columns=KEY))
    scored = {KEY: rows[KEY], "prediction": probability.argmax(axis=1), "probability": probability[:, 1]}
    pd.DataFrame(scored).to_csv(out, index=False)
    return {"work": time.perf_counter() - began}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
