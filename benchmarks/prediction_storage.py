"""What storing predictions costs, as rows with indexes or as blocks: server CPU, space, and the time to find a key.

    python -m benchmarks.prediction_storage

Two sessions copy the chunks of jobs of a million rows into a growing table, as two workers do. Each job scores the same
records, as a monthly run does; their keys come in order, as from the export of a customer table.
"""

from __future__ import annotations

import io
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psutil
import psycopg2
from rich.console import Console
from rich.table import Table

from db import binary_copy, predictions
from db.engine import create_engine, transaction
from db.ids import uuid7
from embedded.postgres import Postgres
from migrations import upgrade
from records.key_filter import key_filter

JOBS = 3
CHUNK = 29_700
CHUNKS = 34
ROWS = CHUNK * CHUNKS
LOOK_UPS = 50

_ROW_TABLE = """
    DROP TABLE IF EXISTS p;
    CREATE TABLE p (job_id uuid NOT NULL, row int NOT NULL, version_id int NOT NULL, record_key text COLLATE "C",
        prediction text NOT NULL, probability float8, scored_at timestamptz DEFAULT now());
"""
_PRIMARY_KEY = "ALTER TABLE p ADD PRIMARY KEY (job_id, row);"
_KEY_INDEX = "CREATE INDEX ON p (record_key);"


@dataclass(frozen=True)
class Variant:
    """How to store: the statements that make an empty table, where COPY goes, and the stream of one chunk."""

    name: str
    make: str
    target: str
    relation: str
    stream: Callable[[UUID, int], bytes]


def main() -> None:
    rows_target = "p (job_id, row, version_id, record_key, prediction, probability)"
    block_target = f"prediction_block ({', '.join(predictions.COLUMNS)})"
    variants = [
        Variant("rows, no index", _ROW_TABLE, rows_target, "p", _rows),
        Variant("rows, primary key", _ROW_TABLE + _PRIMARY_KEY, rows_target, "p", _rows),
        Variant("rows, primary key, btree on keys", _ROW_TABLE + _PRIMARY_KEY + _KEY_INDEX, rows_target, "p", _rows),
        Variant("blocks", "TRUNCATE prediction_block", block_target, "prediction_block", block),
    ]
    table = Table("stored as", *[f"CPU s, job {job + 1}" for job in range(JOBS)], "MB per job", "key found in ms")
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "pg") as server:
        upgrade(server.url)
        for variant in variants:
            costs, size, seconds = _measure(server.url, variant)
            told = "" if seconds is None else f"{1000 * seconds:.2f}"
            table.add_row(variant.name, *[f"{cost:.2f}" for cost in costs], f"{size / 1e6:.0f}", told)
    Console(width=120).print(table, f"{JOBS} jobs of {ROWS:,} rows each")


def _measure(url: str, variant: Variant) -> tuple[list[float], float, float | None]:
    sessions = [psycopg2.connect(url.replace("+psycopg2", "")) for _ in range(2)]
    with sessions[0] as session, session.cursor() as cursor:
        cursor.execute(variant.make)
    costs = [_cost(sessions, variant) for _ in range(JOBS)]
    with sessions[0] as session, session.cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relname LIKE %s",
            (f"{variant.relation}%",) if variant.relation == "prediction_block" else (variant.relation,),
        )
        size = int(cursor.fetchone()[0])  # type: ignore[index]  # an aggregate has one row
    for session in sessions:
        session.close()
    look_up = {"prediction_block": _in_blocks, "p": _in_rows if _KEY_INDEX in variant.make else None}[variant.relation]
    return costs, size / JOBS, None if look_up is None else look_up(url)


def _cost(sessions: list[Any], variant: Variant) -> float:
    """CPU seconds of the server for one job."""
    job = uuid7()
    streams = iter([variant.stream(job, first) for first in range(1, ROWS, CHUNK)])
    servers = [psutil.Process(session.info.backend_pid) for session in sessions]
    before = sum(_seconds(server) for server in servers)

    def work(session: Any) -> None:
        for stream in streams:  # each takes the next one
            with session, session.cursor() as cursor:
                cursor.copy_expert(f"COPY {variant.target} FROM STDIN (FORMAT binary)", io.BytesIO(stream))

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, sessions))
    return sum(_seconds(server) for server in servers) - before


def _seconds(server: psutil.Process) -> float:
    times = server.cpu_times()
    return float(times.user + times.system)


def _in_rows(url: str) -> float:
    return _median_look_up(url, lambda cursor, key: cursor.execute("SELECT * FROM p WHERE record_key = %s", (key,)))


def _in_blocks(url: str) -> float:
    engine = create_engine(url, name="benchmark")
    times = []
    with transaction(engine) as connection:
        for key in _some_keys():
            began = time.perf_counter()
            found = predictions.of_key(connection, [1], key, limit=100)
            times.append(time.perf_counter() - began)
            assert len(found) == JOBS
    engine.dispose()
    return statistics.median(times)


def _median_look_up(url: str, execute: Callable[[Any, str], None]) -> float:
    times = []
    with psycopg2.connect(url.replace("+psycopg2", "")) as session, session.cursor() as cursor:
        for key in _some_keys():
            began = time.perf_counter()
            execute(cursor, key)
            assert len(cursor.fetchall()) == JOBS
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def _some_keys() -> Iterator[str]:
    for row in np.random.default_rng(1).integers(1, ROWS, LOOK_UPS):
        yield f"C{row:010d}"


def _rows(job: UUID, first: int) -> bytes:
    scores = np.random.default_rng(first).random(CHUNK)
    one = binary_copy.int4(1)
    return binary_copy.stream(
        (job.bytes, binary_copy.int4(row), one, b"C%010d" % row, b"1", struct.pack(">d", score))
        for row, score in enumerate(scores, first)
    )


def block(job: UUID, first: int, version: int = 1) -> bytes:
    """The stream of one chunk of `CHUNK` rows; jobs that begin at the same row hold the same records."""
    keys = np.frombuffer(b"".join(b"C%010d" % row for row in range(first, first + CHUNK)), np.uint8)
    offsets = np.arange(CHUNK + 1) * 11
    fields = (
        job.bytes,
        binary_copy.int4(first),
        binary_copy.int4(version),
        None,
        binary_copy.text_array(offsets, keys),
        binary_copy.text_array(np.arange(CHUNK + 1), np.frombuffer(b"1" * CHUNK, np.uint8)),
        binary_copy.float_array(np.random.default_rng(first).random(CHUNK)),
        None,
        key_filter(offsets, keys),
    )
    return binary_copy.stream([fields])


if __name__ == "__main__":
    main()
