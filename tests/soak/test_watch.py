"""What the soak would find: a leak, and not what only goes up and down; a job that is not as it must be."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from load import judge_all
from samples import Sample, trends
from sqlalchemy import Engine
from verdict import install_witness

from db import jobs
from db.engine import transaction
from db.ids import uuid7
from db.jobs import NewJob
from db.tables import model, model_version

HOUR = range(0, 1800, 3)
_NOISE = random.Random(5)


def series(value: Callable[[int], float], measure: str = "pss_mib", name: str = "worker-bulk") -> list[Sample]:
    return [Sample(at, measure, name, value(at) + _NOISE.uniform(-2, 2)) for at in HOUR]


@pytest.mark.parametrize(
    ("samples", "holds"),
    [
        (series(lambda _: 300), True),
        (series(lambda at: 300 + at / 1800 * 120), False),  # 120 MiB in half an hour
        (series(lambda at: 100 + min(at, 300)), True),  # it fills its caches, and then stays
        (series(lambda at: 300 + at % 120), True),  # a sawtooth
        (series(lambda at: 300 + (500 if at == 1500 else 0)), True),
        (series(lambda at: 30 + at / 60, "descriptors"), False),  # one a minute
        (series(lambda at: 20 + at / 100, "connections", "all"), False),
        (series(lambda at: 10 * at, "dead", "chunk"), False),
        (series(lambda at: 10 * (at % 60), "dead", "chunk"), True),
        (series(lambda at: 100 + at, "pss_mib", "Postgres"), True),  # shared buffers
        (series(lambda at: at, "size_mib", "chunk"), True),  # what comes in is kept
    ],
)
def test_what_grows_is_told(samples: list[Sample], holds: bool) -> None:
    (trend,) = trends(samples)
    assert trend.holds is holds, trend


class Looked:
    """As much of the harness as looking needs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        with transaction(self._engine) as connection:
            return list(connection.execute(sa.text(statement), parameters).all())


@pytest.mark.parametrize(
    ("harm", "letters"),
    [
        ("SELECT 1", ""),
        ("INSERT INTO witnessed SELECT id, 'running', 'succeeded' FROM job", "D"),
        ("INSERT INTO tenant_usage (tenant, jobs_open) VALUES ('t', 1)", "E"),
        ("INSERT INTO row_error (job_id, row, code, message, raw) SELECT id, 1, 'x', 'x', 'x' FROM job", "E"),
        ("UPDATE job SET finished_at = NULL", "A"),
    ],
)
def test_a_job_that_is_not_as_it_must_be_is_told(owner: Engine, harm: str, letters: str) -> None:
    install_witness(owner)
    _empty_job(owner)
    with transaction(owner) as connection:
        connection.execute(sa.text(harm))
    found = judge_all(Looked(owner))  # type: ignore[arg-type]  # as said above
    assert "".join(sorted({problem[0] for problem in found})) == letters, found


def _empty_job(engine: Engine) -> UUID:
    """A job without rows, which is over as soon as it is sealed."""
    with transaction(engine) as connection:
        model_id = connection.execute(sa.insert(model).values(tenant="t", name="m").returning(model.c.id)).scalar_one()
        texts = dict.fromkeys(("digest", "reference_digest", "format", "runtime", "created_by"), "x")
        version_id = connection.execute(
            sa.insert(model_version)
            .values(model_id=model_id, version="1.0.0", state="registered", size=1, trusted=False, **texts)
            .returning(model_version.c.id)
        ).scalar_one()
        new = NewJob(uuid7(), "t", version_id, "batch", "bulk", "csv", ["x"], "tests", counted=False)
        jobs.receive(connection, new, lease_seconds=60)
        jobs.seal(connection, new.id, rows=0, chunks=0, request_hash=None)
    return new.id
