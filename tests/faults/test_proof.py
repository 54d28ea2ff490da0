"""The check can fail: without the epoch check, the completion counter or the rescuer it finds what is wrong.

One worker stalls with a chunk in its hands until others have crashed on that chunk and it was cut in two. While another has
the first half in its hands, the late one finishes. It is the protocol itself that runs, on a real Postgres, in the order that
does the most harm; only its SQL is tampered with.
"""

from __future__ import annotations

from uuid import UUID

import numpy as np
import psycopg2
import pytest
import sqlalchemy as sa
from predicted_rows import predicted
from sqlalchemy import Engine
from verdict import Expected, check, install_witness

from db import chunks, jobs
from db.chunks import Claim, Outcome
from db.engine import transaction
from db.ids import uuid7
from db.jobs import NewJob
from db.sql import statement
from db.tables import model, model_version
from errors import Fenced
from records.piece import Piece

ROWS_OF_CHUNKS = (16, 4)
ROUNDS = 30

# What is cut out of which statement, and the letters that must turn red.
SABOTAGE = {
    "epoch check": ("finish_chunks", "AND chunk.epoch = done.epoch", ""),
    "completion counter": ("count_down", "chunks_left = job.chunks_left - done.chunks,", ""),
    "rescuer": ("rescue", "WHERE chunk.state = 'running'", "WHERE false"),
}


def test_the_protocol_as_it_is_holds(owner: Engine) -> None:
    assert _red(owner, _job_with_a_late_finish(owner)) == set()


@pytest.mark.parametrize(
    ("part", "letters"), [("epoch check", {"A", "B", "E"}), ("completion counter", {"A", "E"}), ("rescuer", {"A", "B"})]
)
def test_a_protocol_without_it_does_not(
    part: str, letters: set[str], owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tamper(monkeypatch, *SABOTAGE[part])
    red = _red(owner, _job_with_a_late_finish(owner))
    assert red & letters, f"the check did not notice that the {part} was gone"


def _tamper(monkeypatch: pytest.MonkeyPatch, name: str, part: str, instead: str) -> None:
    text = str(statement(name))
    assert text.count(part) == 1, f"{name}.sql has changed: say anew what to cut out of it"
    tampered = sa.text(text.replace(part, instead))

    def replaced(wanted: str) -> sa.TextClause:
        return tampered if wanted == name else statement(wanted)

    for module in (chunks, jobs):
        monkeypatch.setattr(module, "statement", replaced)


def _red(engine: Engine, job_id: UUID) -> set[str]:
    rows = sum(ROWS_OF_CHUNKS)
    expected = Expected(np.full(rows, "1", dtype=object), np.full(rows, 0.5))
    return {problem[0] for problem in check(engine, job_id, expected).problems}


def _job_with_a_late_finish(engine: Engine) -> UUID:
    install_witness(engine)
    job_id = _job(engine)
    late = _claim(engine, "late")[0]
    for owner in ("first", "second"):  # two crashes: now the chunk is in two halves
        chunks.rescue(engine, poison_attempts=3, dead_owners=["late", "first", "second"])
        _claim(engine, owner)
    chunks.rescue(engine, poison_attempts=3, dead_owners=["first", "second"])
    in_hand = _claim(engine, "worker")
    _finish(engine, late)
    for item in in_hand:
        _finish(engine, item)
    for _ in range(ROUNDS):
        chunks.rescue(engine, poison_attempts=3)
        _drain(engine, "worker")
    return job_id


def _drain(engine: Engine, owner: str) -> None:
    while items := _claim(engine, owner):
        for item in items:
            _finish(engine, item)


def _claim(engine: Engine, owner: str) -> list[Claim]:
    for suspects in (True, False):
        found = chunks.claim(engine, lane="bulk", count=1, owner=owner, lease_seconds=60, suspects=suspects)
        if found:
            return found
    return []


def _finish(engine: Engine, item: Claim) -> None:
    """As a worker child does it: a claim that was taken away is dropped, one that cannot be stored is given up."""
    rows = range(item.first_row, item.first_row + item.rows)
    try:
        chunks.finish(engine, [Outcome(item, item.rows, [])], predicted(item.job_id, rows))
    except Fenced:
        return
    except (sa.exc.IntegrityError, psycopg2.IntegrityError):  # the latter of COPY
        chunks.give_up(engine, [item])


def _job(engine: Engine) -> UUID:
    new = NewJob(
        id=uuid7(), tenant="default", version_id=_version(engine), kind="batch", lane="bulk", format="csv",
        columns=["x"], created_by="tests",
    )  # fmt: skip
    first = 1
    with transaction(engine) as connection:
        assert jobs.receive(connection, new, lease_seconds=60)
        for number, rows in enumerate(ROWS_OF_CHUNKS):
            piece = Piece(first, rows, first + 1, b"1\n" * rows)
            chunks.add(connection, new, number, piece)
            first += rows
        jobs.seal(connection, new.id, rows=first - 1, chunks=len(ROWS_OF_CHUNKS), request_hash=None)
    return new.id


def _version(engine: Engine) -> int:
    values = {
        "version": "1.0.0", "state": "registered", "digest": "sha256:" + "0" * 64, "reference_digest": "sha256:" + "1" * 64,
        "format": "skops", "runtime": "sklearn", "size": 1, "trusted": False, "created_by": "tests",
    }  # fmt: skip
    with transaction(engine) as connection:
        inserted = sa.insert(model).values(tenant="default", name="m").returning(model.c.id)
        model_id = connection.execute(inserted).scalar_one()
        version = sa.insert(model_version).values(model_id=model_id, **values).returning(model_version.c.id)
        return int(connection.execute(version).scalar_one())
