"""The script that a user would write without Scorehouse, to compare with: read, predict, write, in one process.

    python benchmarks/pandas_script.py FILE MODEL OUT

prints its times in seconds as JSON; `work` is reading + predicting + writing, without the imports and the model's loading.
"""

from __future__ import annotations

import json
import sys
import time

import joblib
import pandas as pd

KEY = "customer_id"


def main(file: str, model_file: str, out: str) -> dict[str, float]:
    began = time.perf_counter()
    model = joblib.load(model_file)
    loaded = time.perf_counter()
    rows = pd.read_csv(file)
    read = time.perf_counter()
    probability = model.predict_proba(rows.drop(columns=KEY))
    prediction = model.classes_[probability.argmax(axis=1)]
    predicted = time.perf_counter()
    pd.DataFrame({KEY: rows[KEY], "prediction": prediction, "probability": probability[:, 1]}).to_csv(out, index=False)
    written = time.perf_counter()
    return {
        "load": loaded - began,
        "read": read - loaded,
        "predict": predicted - read,
        "write": written - predicted,
        "work": written - loaded,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
