"""Bulk scoring with Ray Data: two actors hold the model and score batches; the results are a folder of CSV files.

    python benchmarks/peers/ray_script.py FILE MODEL OUT_FOLDER

prints its times in seconds as JSON; `work` is without the imports and Ray's start, with the start of the actors.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

import joblib
import pandas as pd
import pyarrow as pa
import ray

KEY = "customer_id"


class Scorer:
    def __init__(self, model_file: str) -> None:
        self.model = joblib.load(model_file)

    def __call__(self, batch: pa.Table) -> pd.DataFrame:
        rows = (
            batch.to_pandas()
        )  # batch_format="pandas" gives columns of arrow; scikit-learn refuses the missing values of those
        probability = self.model.predict_proba(rows.drop(columns=KEY))
        prediction = self.model.classes_[probability.argmax(axis=1)]
        return pd.DataFrame({KEY: rows[KEY], "prediction": prediction, "probability": probability[:, 1]})


def main(file: str, model_file: str, out: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        ray.init(num_cpus=2, include_dashboard=False, _temp_dir=folder)
        try:
            began = time.perf_counter()
            rows = ray.data.read_csv(file)
            scored = rows.map_batches(
                Scorer,
                fn_constructor_args=(model_file,),
                batch_format="pyarrow",
                batch_size=50_000,
                compute=ray.data.ActorPoolStrategy(size=2),
                num_cpus=0.5,  # two whole ones would leave none to read and to write with
            )
            scored.write_csv(out)
            return {"work": time.perf_counter() - began}
        finally:
            ray.shutdown()


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
