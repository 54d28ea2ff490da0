"""Labels in the database: which are kept, whose prediction is there, and which days are counted anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa
from predicted_rows import predicted
from sqlalchemy import Engine

from db import labels, predictions
from db.audits import Policy
from db.engine import transaction
from db.ids import uuid7
from db.labels import Counts, NewLabel, Staging
from db.tables import job, label, model_version, outcome_window
from monitoring.labelled import count_dirty_days
from registry.signature import Output

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
# Of one block in a row, and of one without the rows that errored, as `predicted` makes their keys: kROW.
GAPS = [*range(101, 150), *range(160, 201)]
OUTPUT = Output(kind="classification", classes=[0, 1], class_type="integer", positive=1, has_probability=True)


@pytest.fixture
def job_id(engine: Engine, version_id: int) -> UUID:
    """A job of 200 rows, of which ten errored; they stand for noon."""
    wanted = uuid7()
    with transaction(engine) as connection:
        connection.execute(
            sa.insert(job).values(
                id=wanted, tenant="default", version_id=version_id, kind="batch", lane="bulk", priority=0,
                state="completed_with_errors", format="csv", columns=["x"], created_by="tests", as_of=NOON,
                rows_total=200, rows_succeeded=190, rows_errored=10,
            )
        )  # fmt: skip
        for rows in (list(range(1, 101)), GAPS):
            predictions.copy(connection, predicted(wanted, rows, version_id))
    return wanted


def upload(engine: Engine, version_id: int, *given: NewLabel, tenant: str = "default") -> Counts:
    with transaction(engine) as connection:
        model_id = connection.execute(sa.select(model_version.c.model_id)).scalar_one()
        staging = Staging(connection)
        staging.add(given)
        return staging.store(tenant, model_id, [version_id])


def count(engine: Engine, version_id: int) -> tuple[int, int]:
    """How many days were counted, and how many labels they have."""
    with transaction(engine) as connection:
        model_id = connection.execute(sa.select(model_version.c.model_id)).scalar_one()
    days = count_dirty_days(engine, model_id, version_id, OUTPUT, Policy())
    with transaction(engine) as connection:
        return days, connection.execute(sa.select(sa.func.sum(outcome_window.c.labelled))).scalar_one()


def of_keys(rows: range) -> list[NewLabel]:
    return [NewLabel("1", None, record_key=f"k{row}") for row in rows]


@pytest.mark.parametrize("rows", [range(95, 105), range(1, 211)], ids=["few", "many"])
def test_a_label_of_a_key_or_of_a_row_finds_its_prediction(
    engine: Engine, version_id: int, job_id: UUID, rows: range
) -> None:
    errored = len(set(rows) & set(range(150, 160))) + len(set(rows) & set(range(201, 211)))
    told = upload(engine, version_id, *of_keys(rows))
    assert (told.received, told.matched, told.unmatched) == (len(rows), len(rows) - errored, errored)
    told = upload(engine, version_id, *(NewLabel("0", None, job_id=job_id, row=row) for row in rows))
    assert (told.received, told.matched, told.unmatched) == (len(rows), len(rows) - errored, errored)
    assert count(engine, version_id) == (1, len(rows) - errored)


def test_rows_of_another_tenant_or_of_no_job_are_not_found(engine: Engine, version_id: int, job_id: UUID) -> None:
    assert upload(engine, version_id, NewLabel("1", None, job_id=job_id, row=1), tenant="other").matched == 0
    unknown = [NewLabel("1", None, job_id=uuid7(), row=1), NewLabel("1", None, job_id=job_id, row=0)]
    assert upload(engine, version_id, *unknown).unmatched == 2
    assert count_dirty_days(engine, 1, version_id, OUTPUT, Policy()) == 0


def test_the_newest_observation_wins_whatever_its_text_holds(engine: Engine, version_id: int) -> None:
    key = 'tab\there, "quotes", back\\slash \\N and\r\nlines'
    given = [
        NewLabel("old", NOON, record_key=key),
        NewLabel("a\\b\tc\nd", NOON + timedelta(days=1), record_key=key),
        NewLabel("x", NOON, record_key="\\N"),
    ]
    assert upload(engine, version_id, *given) == Counts(received=3, matched=0, unmatched=2, replaced=0, stale=1)
    assert upload(engine, version_id, NewLabel("older", NOON, record_key=key)).stale == 1
    with transaction(engine) as connection:
        stored = {row.record_key: row.label for row in connection.execute(sa.select(label))}
    assert stored == {key: "a\\b\tc\nd", "\\N": "x"}


def test_a_label_that_comes_while_its_day_is_counted_makes_it_be_counted_again(
    engine: Engine, version_id: int, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(engine, version_id, *of_keys(range(1, 11)))
    store = labels.put_count

    def interrupted(*arguments: object, **more: object) -> None:
        upload(engine, version_id, *of_keys(range(11, 21)))
        store(*arguments, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(labels, "put_count", interrupted)
        assert count(engine, version_id) == (1, 10)
    assert count(engine, version_id) == (1, 20)
    assert count(engine, version_id) == (0, 20)


def test_a_count_that_breaks_off_is_done_again(
    engine: Engine, version_id: int, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(engine, version_id, *of_keys(range(1, 11)))

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(labels, "export_labelled", broken)
        with pytest.raises(ConnectionError):
            count(engine, version_id)
    assert count(engine, version_id) == (1, 10)
