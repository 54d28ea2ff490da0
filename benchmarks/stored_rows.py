"""Ten million scored rows as the workers' finishes leave them, and what a roll-up and a drift audit over them cost.

A million rows of 20 numeric columns are made, seeded, and profiled in chunks as a worker does; each chunk's profile is then
stored ten times, under jobs of its own, with times that spread over a day. One column has moved, by half its deviation.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import sqlalchemy as sa

from benchmarks.files import SEED
from benchmarks.memory import MIB
from db import audits, profiles
from db.audits import Policy, Request
from db.engine import create_engine, transaction
from db.ids import uuid7
from db.profiles import ChunkProfile, Reference
from db.tables import job, model, model_version
from embedded.postgres import Postgres
from migrations import upgrade
from monitoring.audit import run_one
from monitoring.profile import profile_of
from monitoring.reference import reference_of
from monitoring.rollup import roll_up
from monitoring.schema import ProfileSchema
from registry.examine import Sample
from registry.runtime import Scores
from registry.signature import Column, Output, Signature
from registry.store import ArtefactStore

Matrix = npt.NDArray[np.float64]

COLUMNS = [f"x{place:02}" for place in range(20)]
MOVED = COLUMNS[0]
REFERENCE_ROWS = 30_000
CHUNK_ROWS, CHUNKS, REPEATS = 29_700, 34, 10
RAW_ROWS = CHUNK_ROWS * CHUNKS
STORED_ROWS = RAW_ROWS * REPEATS
AUDITS = 5
WANTED_SECONDS, WANTED_MIB = 1.0, 200.0

_OUTPUT = Output(kind="classification", classes=[0, 1], class_type="integer", positive=1, has_probability=True)
_SIGNATURE = Signature(columns=[Column(name=name, type="number") for name in COLUMNS], output=_OUTPUT)


@dataclass(frozen=True)
class StoredRows:
    """What it cost. `profile_seconds`: to count the raw rows, once, which workers do when they score.

    `audit_seconds` of each audit, the first in a process that has done none yet; `extra_mib` is the highest that the
    resident memory of that process ever was, less what it was before the roll-up.
    """

    profile_seconds: float
    profile_bytes: int
    roll_up_seconds: float
    audit_seconds: list[float]
    before_mib: float
    extra_mib: float
    document: dict[str, Any]

    @property
    def typical_seconds(self) -> float:
        return median(self.audit_seconds)

    @property
    def distances(self) -> dict[str, float]:
        """By input column, the Kolmogorov-Smirnov distance that the audit found."""
        return {
            column["name"]: column["value"]
            for column in self.document["columns"]
            if column["statistic"] == "ks" and column["name"] in COLUMNS
        }


def raw(rows: int, seed: int, shift: float = 0.0) -> Matrix:
    """(rows, 20): normal, log-normal, whole and uniform numbers in turn; `shift` moves the first column."""
    random = np.random.default_rng([SEED, seed])
    draws = [
        lambda place: random.normal(place, 1.0, rows),
        lambda place: random.lognormal(0.1 * place, 0.8, rows),
        lambda place: random.poisson(1.0 + place, rows).astype(np.float64),
        lambda place: random.uniform(-place, 1.0 + place, rows),
    ]
    values = np.column_stack([draws[place % len(draws)](place) for place in range(len(COLUMNS))])
    values[:, 0] += shift
    return values


def measure(reference: Matrix, current: Matrix) -> StoredRows:
    """Store, roll up and audit `RAW_ROWS` rows, ten times over, in an embedded Postgres.

    Raises:
        RuntimeError: the audit did not see all rows, or does not tell the column that moved.
    """
    judged_by = reference_of(_SIGNATURE, Sample(_table(reference), _scores(reference), None))
    schema = ProfileSchema.model_validate(judged_by.schema)
    began = time.perf_counter()
    packed = [
        profile_of(schema, _table(chunk), _scores(chunk), []).to_bytes() for chunk in np.array_split(current, CHUNKS)
    ]
    profile_seconds = time.perf_counter() - began
    with _database() as url:
        end = _fill(url, judged_by, packed)
        # In a process of its own, so that the memory is that of the audit and not of the rows made here.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            roll_up_seconds, audit_seconds, before_mib, extra_mib = pool.submit(_audited, url, end).result()
        engine = create_engine(url, name="benchmark")
        with transaction(engine) as connection:
            document: dict[str, Any] = audits.latest(connection, 1, "drift")[0].document
        engine.dispose()
    found = StoredRows(profile_seconds, len(packed[0]), roll_up_seconds, audit_seconds, before_mib, extra_mib, document)
    drifted = [name for name, distance in found.distances.items() if distance >= 0.1]
    if document["rows"] != STORED_ROWS or drifted != [MOVED]:
        raise RuntimeError(f"{document['rows']:,} of {STORED_ROWS:,} rows were audited, and {drifted} drifted")
    return found


def _table(values: Matrix) -> pa.Table:
    return pa.table({name: np.ascontiguousarray(values[:, place]) for place, name in enumerate(COLUMNS)})


def _scores(values: Matrix) -> Scores:
    """Of an invented logistic model."""
    positive = 1 / (1 + np.exp(0.5 - values[:, 4] / 8 - np.log1p(values[:, 1]) / 4))
    return Scores((positive > 0.5).astype(np.int64), np.column_stack([1 - positive, positive]))


@contextmanager
def _database() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as folder:
        postgres = Postgres(Path(folder) / "postgres")
        postgres.start()
        try:
            upgrade(postgres.url)
            yield postgres.url
        finally:
            postgres.discard()


def _fill(url: str, reference: Reference, packed: list[bytes]) -> datetime:
    """Store the profiles over the 24 hours before an hour, which is returned."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    engine = create_engine(url, name="benchmark")
    with transaction(engine) as connection:
        version_id = _version(connection)
        profiles.put_reference(connection, version_id, reference)
        for number in range(REPEATS):
            job_id = uuid7()
            connection.execute(
                sa.insert(job).values(
                    id=job_id, tenant="default", version_id=version_id, kind="batch", lane="bulk", priority=0,
                    state="succeeded", format="csv", columns=COLUMNS, created_by="benchmark",
                    rows_total=RAW_ROWS, rows_succeeded=RAW_ROWS, chunks_total=CHUNKS,
                )
            )  # fmt: skip
            for place, profile in enumerate(packed):
                share = (number * CHUNKS + place) / (REPEATS * CHUNKS)
                counted = ChunkProfile(
                    version_id=version_id,
                    job_id=job_id,
                    as_of=end - timedelta(days=1) * (1 - share),
                    endpoint="jobs",
                    rows=CHUNK_ROWS,
                    errors={},
                    seconds=[1.0],
                    schema_digest=reference.schema_digest,
                    profile=profile,
                )
                profiles.add(connection, [counted])
    engine.dispose()
    return end


def _version(connection: sa.Connection) -> int:
    model_id = connection.execute(sa.insert(model).values(tenant="default", name="m").returning(model.c.id))
    values = {
        "model_id": model_id.scalar_one(), "version": "1.0.0", "state": "registered", "digest": "sha256:" + "0" * 64,
        "reference_digest": "sha256:" + "1" * 64, "format": "skops", "runtime": "sklearn", "size": 1, "trusted": False,
        "signature": _SIGNATURE.model_dump(mode="json"), "created_by": "benchmark",
    }  # fmt: skip
    version_id: int = connection.execute(
        sa.insert(model_version).values(values).returning(model_version.c.id)
    ).scalar_one()
    return version_id


def _audited(url: str, end: datetime) -> tuple[float, list[float], float, float]:
    """Seconds of the roll-up and of each audit, and MiB before and beyond; runs in a process of its own."""
    engine = create_engine(url, name="benchmark")
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        store = ArtefactStore(folder)
        with transaction(engine) as connection:
            audits.now(connection)  # a worker is connected
        before = psutil.Process().memory_info().rss / MIB
        began = time.perf_counter()
        if roll_up(engine) != REPEATS * CHUNKS:
            raise RuntimeError("not all profiles were rolled up")
        roll_up_seconds = time.perf_counter() - began
        wanted = Request("drift", 1, 1, end - timedelta(days=1), end, Policy().configuration, alerting=True)
        for _ in range(AUDITS):
            with transaction(engine) as connection:
                audits.request(connection, wanted)
            began = time.perf_counter()
            run_one(engine, store, Path(folder))
            seconds.append(time.perf_counter() - began)
    return roll_up_seconds, seconds, before, _highest_mib() - before


def _highest_mib() -> float:
    """The most memory that this process ever had resident, as the kernel keeps it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return math.nan
