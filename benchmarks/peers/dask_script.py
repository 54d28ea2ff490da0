"""Bulk scoring with Dask: a local cluster of two processes reads, scores and writes partitions of 8 MB.

    python benchmarks/peers/dask_script.py FILE MODEL OUT

prints its times in seconds as JSON; `work` is without the imports, the cluster's start and the model's loading.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import dask.dataframe as dd
import joblib
import pandas as pd
from dask.distributed import Client, LocalCluster

KEY = "customer_id"
SCORED = {KEY: "str", "prediction": "int64", "probability": "float64"}


def main(file: str, model_file: str, out: str) -> dict[str, float]:
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
    with cluster, Client(cluster) as client:
        model = client.scatter(joblib.load(model_file), broadcast=True)
        began = time.perf_counter()
        rows = dd.read_csv(file, blocksize="8MB")  # by default one partition would hold nearly all of it
        scored = rows.map_partitions(score, model, meta=pd.DataFrame({}, columns=list(SCORED)).astype(SCORED))
        scored.to_csv(out, single_file=True, index=False)
        return {"work": time.perf_counter() - began}


def score(rows: pd.DataFrame, model: Any) -> pd.DataFrame:
    probability = model.predict_proba(rows.drop(columns=KEY))
    prediction = model.classes_[probability.argmax(axis=1)]
    return pd.DataFrame({KEY: rows[KEY], "prediction": prediction, "probability": probability[:, 1]})


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
