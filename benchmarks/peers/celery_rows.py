"""Bulk scoring with one Celery task for each row, the tasks and results those of `benchmarks.usual_design`.

    celery --app=benchmarks.usual_design:tasks worker --concurrency=2
    python -m benchmarks.peers.celery_rows FILE OUT

prints its times in seconds as JSON; `work` is from reading the file to the CSV of the results.
"""

from __future__ import annotations

import json
import sys
import time

import pandas as pd

from benchmarks.usual_design import score

KEY = "customer_id"


def main(file: str, out: str) -> dict[str, float]:
    began = time.perf_counter()
    rows = pd.read_csv(file)
    waiting = [score.delay(record) for record in rows.drop(columns=KEY).to_dict("records")]
    scored = [task.get() for task in waiting]
    results = {
        KEY: rows[KEY],
        "prediction": [one["prediction"] for one in scored],
        "probability": [one["probability"][1] for one in scored],
    }
    pd.DataFrame(results).to_csv(out, index=False)
    return {"work": time.perf_counter() - began}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
