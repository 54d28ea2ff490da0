"""A model with a reference profile, and rows of it that are scored by the chunk protocol, for the tests of audits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from predicted_rows import predicted
from sqlalchemy import Engine

from db import audits, chunks, jobs, labels, profiles
from db.chunks import Outcome
from db.engine import transaction
from db.ids import uuid7
from db.jobs import NewJob
from db.labels import Counts, NewLabel, Staging
from db.profiles import ChunkProfile, Reference
from db.tables import model, model_alias, model_version
from monitoring.outcomes import outcomes_of
from monitoring.profile import Profile, from_bytes, profile_of
from monitoring.schema import ProfileSchema, schema_of
from records.piece import Piece
from records.row_error import RowError
from registry.runtime import Scores
from registry.signature import Signature

SIGNATURE = Signature.model_validate(
    {
        "columns": [{"name": "x", "type": "number", "nullable": True}],
        "output": {
            "kind": "classification",
            "classes": [0, 1],
            "class_type": "integer",
            "positive": 1,
            "has_probability": True,
        },
    }
)
assert SIGNATURE.output is not None
OUTPUT = SIGNATURE.output
T = TypeVar("T")


def scores(rows: int) -> Scores:
    """Those that `predicted` stores."""
    return Scores(np.ones(rows, np.int64), np.full((rows, 2), 0.5))


def features(rows: int) -> pa.Table:
    return pa.table({"x": pa.array(np.linspace(0, 1, rows) if rows else [], pa.float64())})


SCHEMA: ProfileSchema = schema_of(SIGNATURE, features(500), scores(500))


def profile(rows: int) -> Profile:
    return profile_of(SCHEMA, features(rows), scores(rows), [])


@dataclass(frozen=True)
class Audited:
    """A version, with what its tests do."""

    engine: Engine
    tenant: str
    model_id: int
    version_id: int

    def receive(
        self, *rows: int, as_of: datetime | None = None, endpoint: str = "jobs", first_row: int = 1, seal: bool = True
    ) -> UUID:
        """A job of a chunk for each number of rows."""
        new = NewJob(
            id=uuid7(),
            tenant=self.tenant,
            version_id=self.version_id,
            kind="batch",
            lane="bulk",
            format="csv",
            columns=["x"],
            created_by="tests",
            as_of=as_of,
            endpoint=endpoint,
        )
        with transaction(self.engine) as connection:
            assert jobs.receive(connection, new, lease_seconds=60)
            row = first_row
            for number, count in enumerate(rows):
                piece = Piece(row, count, row + 1, b"1\n" * count)
                chunks.add(connection, new, number, piece)
                row += count
            if seal:
                self.seal(connection, new.id, *rows)
        return new.id

    @staticmethod
    def seal(connection: sa.Connection, job_id: UUID, *rows: int) -> None:
        jobs.seal(connection, job_id, rows=sum(rows), chunks=len(rows), request_hash=None)

    def finish_one(self, errored: int = 0, *, profiled: bool = True) -> bool:
        """Score the next chunk, the first `errored` rows of which are row errors; False when there is none."""
        claims = chunks.claim(self.engine, lane="bulk", count=1, owner="tests", lease_seconds=60)
        for claim in claims:
            bad = range(claim.first_row, claim.first_row + min(errored, claim.rows))
            errors = [RowError(row, row + 1, None, "x", "type_error", "no number", "?") for row in bad]
            good = list(range(bad.stop, claim.first_row + claim.rows))
            counted = ChunkProfile(
                version_id=self.version_id,
                job_id=claim.job_id,
                as_of=claim.as_of,
                endpoint=claim.endpoint,
                rows=len(good),
                errors={"type_error": len(errors)} if errors else {},
                seconds=[0.2],
                schema_digest=SCHEMA.digest if profiled else None,
                profile=profile(len(good)).to_bytes() if profiled else None,
            )
            chunks.finish(
                self.engine,
                [Outcome(claim, len(good), errors)],
                predicted(claim.job_id, good, self.version_id),
                [counted],
            )
        return bool(claims)

    def score(self, *rows: int, **more: Any) -> UUID:
        """A job that is scored. Row r of it has the key kr, the prediction 1 and the probability 0.5."""
        job_id = self.receive(*rows, **more)
        while self.finish_one():
            pass
        return job_id

    def label(self, *given: NewLabel, tenant: str | None = None) -> Counts:
        with transaction(self.engine) as connection:
            staging = Staging(connection)
            staging.add(given)
            return staging.store(tenant or self.tenant, self.model_id, [self.version_id])

    def dirty(self) -> list[str]:
        with transaction(self.engine) as connection:
            return [f"{day}" for day in labels.dirty_days(connection, self.version_id)]

    def total(self) -> dict[str, Any]:
        """What Prometheus is told of the version: rows, errors, and how many durations, by endpoint and code."""
        found: dict[str, Any] = {}
        with transaction(self.engine) as connection:
            for row in profiles.totals(connection):
                timed = sum(row.seconds_counts) if row.seconds is None else len(row.seconds)
                for name, count in {row.endpoint: row.rows, "timed": timed, **row.errors}.items():
                    found[name] = found.get(name, 0) + count
        return found

    def rows_between(self, start: datetime, end: datetime) -> int:
        """By the profiles, which must agree with their counted rows."""
        with transaction(self.engine) as connection:
            whole = profiles.whole(start, end, datetime.now(UTC))
            found = profiles.between(connection, self.version_id, SCHEMA.digest, *whole)
            counted = profiles.scored(connection, self.version_id, *whole)
        each = [from_bytes(SCHEMA, item) for item in found]
        assert sum(item.rows for item in each) == counted
        assert sum(item.column("x").values for item in each) == counted
        return counted


def register(
    engine: Engine, *, tenant: str = "default", name: str = "m", reference: bool = True, deployed: int | None = 0
) -> Audited:
    """A version, in production since the full hour that was `deployed` hours ago if that is not None."""
    with transaction(engine) as connection:
        model_id = connection.execute(
            sa.insert(model).values(tenant=tenant, name=name).returning(model.c.id)
        ).scalar_one()
        version_id = connection.execute(
            sa.insert(model_version)
            .values(
                model_id=model_id,
                version="1.0.0",
                state="registered",
                digest="sha256:" + "0" * 64,
                reference_digest="sha256:" + "1" * 64,
                format="skops",
                runtime="sklearn",
                size=1,
                trusted=False,
                signature=SIGNATURE.model_dump(mode="json"),
                created_by="tests",
            )
            .returning(model_version.c.id)
        ).scalar_one()
        if deployed is not None:
            since = audits.now(connection).replace(minute=0, second=0, microsecond=0) - timedelta(hours=deployed)
            connection.execute(
                sa.insert(model_alias).values(
                    model_id=model_id, alias="production", version_id=version_id, changed_at=since
                )
            )
        if reference:
            known = outcomes_of(OUTPUT, ["1"] * 100, np.full(100, 0.5), None, ["1"] * 90 + ["0"] * 10)
            profiles.put_reference(
                connection,
                version_id,
                Reference(
                    SCHEMA.model_dump(mode="json"), SCHEMA.digest, profile(500).to_bytes(), known.to_json(), None
                ),
            )
    return Audited(engine, tenant, model_id, version_id)


def at_once(*calls: Callable[[], T]) -> list[T]:
    """The results of calls that begin at the same moment, each in a thread of its own."""
    barrier = Barrier(len(calls))

    def begin(call: Callable[[], T]) -> T:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(begin, call) for call in calls]]


def keyed(numbers: Sequence[int], label: str = "1", observed_at: datetime | None = None) -> list[NewLabel]:
    return [NewLabel(label, observed_at, record_key=f"k{number}") for number in numbers]
