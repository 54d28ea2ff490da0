"""Bulk scoring as Celery's tutorials have it: chunks of records as JSON in the message, results by `to_sql` into Postgres.

    celery --app=benchmarks.peers.celery_chunks:tasks worker --concurrency=2
    python -m benchmarks.peers.celery_chunks FILE OUT

prints its times in seconds as JSON; `work` is from reading the file to the CSV of the results, read back from Postgres.
The inputs are in Redis until a worker takes them; what a killed worker had in hand is lost.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import joblib
import pandas as pd
import sqlalchemy as sa
from celery import Celery, group
from celery.signals import worker_process_init

BROKER = os.environ.get("PEER_BROKER", "redis://127.0.0.1:6379/0")
KEY = "customer_id"
CHUNK_ROWS = 10_000

tasks = Celery("chunks", broker=BROKER, backend=BROKER)
_loaded: dict[str, Any] = {}


@worker_process_init.connect
def load(**_: object) -> None:
    """Each child holds the model and connections of its own."""
    _loaded["model"] = joblib.load(os.environ["PEER_ARTEFACT"])
    _loaded["engine"] = engine()


@tasks.task(name="chunks.score")
def score(records: list[dict[str, Any]]) -> int:
    rows, model = pd.DataFrame(records), _loaded["model"]
    probability = model.predict_proba(rows.drop(columns=KEY))
    prediction = model.classes_[probability.argmax(axis=1)]
    scored = pd.DataFrame({KEY: rows[KEY], "prediction": prediction, "probability": probability[:, 1]})
    scored.to_sql("scored", _loaded["engine"], if_exists="append", index=False)
    return len(scored)


def engine() -> sa.Engine:
    return sa.create_engine(os.environ["PEER_DATABASE"])


def main(file: str, out: str) -> dict[str, float]:
    database = engine()
    empty = pd.DataFrame({KEY: ["text"], "prediction": [0], "probability": [0.0]}).head(0)
    empty.to_sql("scored", database, if_exists="replace", index=False)
    began = time.perf_counter()
    chunks = pd.read_csv(file, chunksize=CHUNK_ROWS)
    group(score.s(chunk.to_dict("records")) for chunk in chunks).apply_async().get()
    pd.read_sql(f"SELECT * FROM scored ORDER BY {KEY}", database).to_csv(out, index=False)
    return {"work": time.perf_counter() - began}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
