"""The script of somebody who knows how: arrow reads, two processes score blocks of rows, arrow writes. To compare with.

    python benchmarks/expert_script.py FILE MODEL OUT

prints its times in seconds as JSON; `work` is reading + predicting + writing, without the imports, the processes' start and the
model's loading. What is killed half-way begins anew, and nothing is kept of inputs and scores.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing.pool import AsyncResult, Pool
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a core for each process; read when the libraries are loaded

import joblib
import pyarrow as pa
import pyarrow.csv as pacsv

KEY = "customer_id"
PROCESSES = 2
BLOCK_BYTES = 4 << 20
_model: Any = None


def main(file: str, model_file: str, out: str) -> dict[str, float]:
    with multiprocessing.get_context("fork").Pool(PROCESSES, _load, (model_file,)) as pool:
        pool.map(_wait, range(PROCESSES), chunksize=1)
        began = time.perf_counter()
        writer = None
        for scored in _in_turn(pool, file):
            writer = writer or pacsv.CSVWriter(
                out, scored.schema, write_options=pacsv.WriteOptions(quoting_style="none")
            )
            writer.write_table(scored)
        if writer is not None:
            writer.close()
        return {"work": time.perf_counter() - began}


def _in_turn(pool: Pool, file: str) -> Iterator[pa.Table]:
    """Blocks in their order, some of them read ahead."""
    waiting: deque[AsyncResult[pa.Table]] = deque()
    for block in pacsv.open_csv(file, pacsv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False)):
        waiting.append(pool.apply_async(_score, (block,)))
        if len(waiting) > 2 * PROCESSES:
            yield waiting.popleft().get()
    while waiting:
        yield waiting.popleft().get()


def _load(model_file: str) -> None:
    global _model  # noqa: PLW0603 - one per process
    pa.set_cpu_count(1)
    _model = joblib.load(model_file)


def _wait(_: int) -> None:
    """Until each process has its model."""
    time.sleep(0.2)


def _score(block: pa.RecordBatch) -> pa.Table:
    rows = block.to_pandas()
    probability = _model.predict_proba(rows.drop(columns=KEY))
    prediction = _model.classes_[probability.argmax(axis=1)]
    columns = {KEY: block.column(KEY), "prediction": prediction, "probability": probability[:, 1]}
    return pa.table({name: pa.array(values) for name, values in columns.items()})


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
