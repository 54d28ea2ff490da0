"""What each index on `prediction` costs while rows are copied in, and what a look-up by record key costs then.

Run: python -m benchmarks.prediction_indexes [ROWS]
"""

from __future__ import annotations

import io
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psycopg2
from rich.console import Console
from rich.table import Table

from db.ids import uuid7
from embedded.postgres import Postgres

VARIANTS = {
    "no index": [],
    "primary key (job_id, row)": ["ALTER TABLE p ADD PRIMARY KEY (job_id, row)"],
    "primary key + btree (record_key)": [
        "ALTER TABLE p ADD PRIMARY KEY (job_id, row)",
        "CREATE INDEX ON p (record_key)",
    ],
    "primary key + hash (record_key)": [
        "ALTER TABLE p ADD PRIMARY KEY (job_id, row)",
        "CREATE INDEX ON p USING hash (record_key)",
    ],
    "primary key + btree (hash of record_key)": [
        "ALTER TABLE p ADD PRIMARY KEY (job_id, row)",
        "CREATE INDEX ON p (hashtext(record_key))",
    ],
    "primary key + brin bloom (record_key)": [
        "ALTER TABLE p ADD PRIMARY KEY (job_id, row)",
        "CREATE INDEX ON p USING brin (record_key text_bloom_ops)",
    ],
    "brin (job_id, row) + btree (record_key)": [
        "CREATE INDEX ON p USING brin (job_id, row)",
        "CREATE INDEX ON p (record_key)",
    ],
}
CHUNK = 22_000


def main(rows: int) -> None:
    table = Table("indexes", "rows/s", "relative", "MB table + indexes", "look-up ms")
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "pg") as server:
        connection = psycopg2.connect(server.url.replace("+psycopg2", ""))
        baseline = None
        for name, statements in VARIANTS.items():
            rate, size, lookup = _measure(connection, statements, rows)
            baseline = baseline or rate
            table.add_row(name, f"{rate:,.0f}", f"{rate / baseline:.2f}", f"{size / 1e6:.0f}", f"{lookup * 1e3:.2f}")
        connection.close()
    Console().print(table)


def _measure(connection: psycopg2.extensions.connection, statements: list[str], rows: int) -> tuple[float, int, float]:
    keys = [f"C{number:09d}" for number in range(rows)]
    random.Random(1).shuffle(keys)
    cursor = connection.cursor()
    cursor.execute("DROP TABLE IF EXISTS p")
    cursor.execute(
        "CREATE TABLE p (job_id uuid NOT NULL, row int NOT NULL, version_id int NOT NULL, record_key text, "
        "prediction text NOT NULL, probability float8, probabilities float8[], scored_at timestamptz DEFAULT now())"
    )
    for statement in statements:
        cursor.execute(statement)
    connection.commit()
    job = uuid7()
    blocks = [
        "".join(
            f"{job},{row},1,{keys[row]},{row % 2},0.{row:09d}123,\n" for row in range(first, min(rows, first + CHUNK))
        )
        for first in range(0, rows, CHUNK)
    ]
    began = time.perf_counter()
    for block in blocks:
        cursor.copy_expert(
            "COPY p (job_id, row, version_id, record_key, prediction, probability, probabilities) "
            "FROM STDIN (FORMAT csv)",
            io.StringIO(block),
        )
        connection.commit()
    seconds = time.perf_counter() - began
    cursor.execute("SELECT pg_total_relation_size('p')")
    size = cursor.fetchone()[0]
    connection.commit()
    connection.autocommit = True
    cursor.execute("VACUUM ANALYZE p")
    connection.autocommit = False
    times = []
    expression = "hashtext(record_key) = hashtext(%s) AND " if any("hashtext" in s for s in statements) else ""
    for key in keys[:20]:
        began = time.perf_counter()
        arguments = (key, key) if expression else (key,)
        cursor.execute(f"SELECT * FROM p WHERE {expression}record_key = %s", arguments)
        cursor.fetchall()
        times.append(time.perf_counter() - began)
    connection.commit()
    return rows / seconds, size, statistics.median(times)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
