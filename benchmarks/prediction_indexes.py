"""What indexes on `prediction` cost while rows are copied into a growing table, in server CPU per million rows.

Run: python -m benchmarks.prediction_indexes
"""

from __future__ import annotations

import io
import random
import tempfile
from pathlib import Path

import numpy as np
import psutil
import psycopg2
import psycopg2.extensions
from rich.console import Console
from rich.table import Table

from db import binary_copy
from db.ids import uuid7
from db.predictions import COLUMNS
from embedded.postgres import Postgres

PRIMARY_KEY = "ALTER TABLE p ADD PRIMARY KEY (job_id, row)"
VARIANTS = [
    ("primary key", [PRIMARY_KEY], "shuffled"),
    ("primary key + hash (record_key)", [PRIMARY_KEY, "CREATE INDEX ON p USING hash (record_key)"], "shuffled"),
    ("primary key + hash (record_key)", [PRIMARY_KEY, "CREATE INDEX ON p USING hash (record_key)"], "in order"),
    ("primary key + btree (record_key)", [PRIMARY_KEY, "CREATE INDEX ON p (record_key)"], "shuffled"),
    ("primary key + btree (record_key)", [PRIMARY_KEY, "CREATE INDEX ON p (record_key)"], "in order"),
]
STEPS = 4
ROWS_PER_STEP = 600_000
CHUNK = 29_700
TABLE = (
    'CREATE TABLE p (job_id uuid NOT NULL, row int NOT NULL, version_id int NOT NULL, record_key text COLLATE "C", '
    "prediction text NOT NULL, probability float8, probabilities float8[], scored_at timestamptz DEFAULT now())"
)


def main() -> None:
    table = Table(
        "indexes", "keys", *[f"{step + 1}. {ROWS_PER_STEP:,}" for step in range(STEPS)], title="CPU s / 1M rows"
    )
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "pg") as server:
        connection = psycopg2.connect(server.url.replace("+psycopg2", ""))
        for name, statements, order in VARIANTS:
            with connection, connection.cursor() as cursor:
                for statement in ["DROP TABLE IF EXISTS p", TABLE, *statements]:
                    cursor.execute(statement)
            costs = [_step(connection, step, order) for step in range(STEPS)]
            table.add_row(name, order, *[f"{cost:.2f}" for cost in costs])
        connection.close()
    Console().print(table)


def _step(connection: psycopg2.extensions.connection, step: int, order: str) -> float:
    keys = [f"C{number + step * 1_000_000:09d}" for number in range(ROWS_PER_STEP)]
    if order == "shuffled":
        random.Random(step).shuffle(keys)
    job = uuid7()
    streams = [_stream(job.bytes, keys, first) for first in range(0, ROWS_PER_STEP, CHUNK)]
    server = psutil.Process(connection.info.backend_pid)
    before = server.cpu_times()
    for stream in streams:
        with connection, connection.cursor() as cursor:
            cursor.copy_expert(f"COPY p ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)", io.BytesIO(stream))
    after = server.cpu_times()
    return (after.user + after.system - before.user - before.system) / ROWS_PER_STEP * 1e6


def _stream(job: bytes, keys: list[str], first: int) -> bytes:
    texts = [key.encode() for key in keys[first : first + CHUNK]]
    count = len(texts)
    return binary_copy.encode(
        [
            binary_copy.Field(np.full(count, 16, np.int32), np.tile(np.frombuffer(job, np.uint8), count)),
            binary_copy.integers(np.arange(first, first + count)),
            binary_copy.integers(np.ones(count)),
            binary_copy.texts(np.cumsum([0, *map(len, texts)]), np.frombuffer(b"".join(texts), np.uint8)),
            binary_copy.texts(np.arange(count + 1), np.frombuffer(b"1" * count, np.uint8)),
            binary_copy.floats(np.random.default_rng(first).random(count)),
            binary_copy.nothing(count),
        ]
    )


if __name__ == "__main__":
    main()
