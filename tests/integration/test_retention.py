"""Retention: what is past its age goes, exactly once, and whoever asks for it is told so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from predicted_rows import predicted
from sqlalchemy import Engine

from api.app import create_app
from api.tokens import create_token
from db import chunks, jobs, predictions, retention, samples, trainings, usage
from db.chunks import Outcome
from db.engine import transaction
from db.ids import lower_bound, uuid7
from db.tables import alert_event, chunk, job, prediction, training_run
from records.payload import unpack
from records.row_error import RowError
from settings import Settings

LATER = datetime.now(UTC) + timedelta(days=40)


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    client = create_app(settings).test_client()
    token = create_token(settings, subject="t", tenant="default", scopes=["admin"], ttl=timedelta(minutes=5))
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return client


def finished(engine: Engine, job_id: UUID) -> UUID:
    """The job with all of its chunks done: the last row of each is a row error, the others are predictions."""
    for claim in chunks.claim(engine, lane="bulk", count=100, owner="w", lease_seconds=30):
        last = claim.first_row + claim.rows - 1
        error = RowError(last, claim.first_line + claim.rows - 1, None, "x", "missing_value", "is empty", "")
        block = predicted(claim.job_id, range(claim.first_row, last), claim.version_id)
        chunks.finish(engine, [Outcome(claim, claim.rows - 1, [error])], block)
    return job_id


def counting(engine: Engine, job_id: UUID, bytes: int) -> None:
    """Let a job that the factory made count against the quota."""
    with transaction(engine) as connection:
        connection.execute(sa.update(job).where(job.c.id == job_id).values(bytes_stored=bytes))
        connection.execute(
            sa.text("INSERT INTO tenant_usage VALUES ('default', 0, :b) ON CONFLICT (tenant) "
                    "DO UPDATE SET bytes_stored = tenant_usage.bytes_stored + :b"),
            {"b": bytes},
        )  # fmt: skip


def stored(engine: Engine) -> int:
    with transaction(engine) as connection:
        return usage.of(connection, "default").bytes_stored


def test_inputs_go_before_their_job_and_are_given_back_once(engine: Engine, make_job: Callable[..., UUID]) -> None:
    job_id, open_id, of_deployment = finished(engine, make_job(3, 3)), make_job(3), make_job()
    counting(engine, job_id, 1_000)
    counting(engine, open_id, 10)
    with transaction(engine) as connection:
        connection.execute(sa.update(job).where(job.c.id == of_deployment).values(bytes_stored=None))
    assert retention.remove_inputs(engine, days=50, now=LATER) == 0, "they are younger"
    assert retention.remove_inputs(engine, days=30, now=LATER) == 2
    assert stored(engine) == 10, "the open job keeps its own"
    assert retention.remove_inputs(engine, days=30, now=LATER) == 0
    with transaction(engine) as connection:
        sizes = connection.execute(
            sa.select(chunk.c.job_id, sa.func.sum(sa.func.octet_length(chunk.c.payload))).group_by(chunk.c.job_id)
        ).all()
        usage.recount(connection, "default")
        counts = connection.execute(sa.select(job.c.bytes_stored).where(job.c.id == of_deployment)).scalar_one()
    assert dict(sizes)[job_id] == 0
    assert dict(sizes)[open_id] > 0
    assert counts is None, "what counted against nobody still does not"
    assert stored(engine) == 10 + 1, "the open job, and the version's artefact"
    assert retention.remove_jobs(engine, days=30, now=LATER) == 2
    assert stored(engine) == 10 + 1, "the job gives nothing back a second time"


def test_who_asks_for_inputs_that_are_gone_is_told_so(
    client: FlaskClient, engine: Engine, make_job: Callable[..., UUID]
) -> None:
    job_id = finished(engine, make_job(3, 3))
    assert client.get(f"/v1/jobs/{job_id}").get_json()["inputs_removed_at"] is None
    before = client.get(f"/v1/jobs/{job_id}/results").data
    retention.remove_inputs(engine, days=30, now=LATER)
    assert client.get(f"/v1/jobs/{job_id}").get_json()["inputs_removed_at"] is not None
    for format in ("csv", "ndjson", "parquet"):
        refused = client.get(f"/v1/jobs/{job_id}/results?format={format}&include=inputs")
        assert refused.status_code == 410
        assert "the inputs of job" in refused.get_json()["detail"]
    refused = client.post(f"/v1/jobs/{job_id}/retry", json={})
    assert refused.status_code == 410
    assert [each["id"] for each in client.get("/v1/jobs").get_json()["jobs"]] == [str(job_id)], (
        "no child is left behind"
    )
    assert client.get(f"/v1/jobs/{job_id}/results").data == before
    assert len(client.get(f"/v1/jobs/{job_id}/errors?format=ndjson").data.splitlines()) == 2
    (scored,) = client.get("/v1/predictions?model=m&key=k2").get_json()["predictions"]
    assert scored["inputs"] is None
    assert scored["prediction"] == 1


def test_samples_leave_out_what_has_no_inputs(engine: Engine, make_job: Callable[..., UUID], version_id: int) -> None:
    gone = finished(engine, make_job(2))
    retention.remove_inputs(engine, days=30, now=LATER)
    there = finished(engine, make_job(4))
    today = datetime.now(UTC)
    with transaction(engine) as connection:
        drawn = samples.chunks_between(
            connection, version_id, today - timedelta(days=1), today + timedelta(days=1), rows=10, seed=1
        )
        last = samples.last_chunks(connection, [version_id], until=None, rows=10)
        lost = samples.inputs(connection, gone, 0)
        kept = samples.inputs(connection, there, 0)
    assert [unpack(bytes(each.payload), 100) for each in drawn] == [b"1\n2\n3\n4\n"]
    assert [each.job_id for each in last] == [there]
    assert lost is None
    assert kept is not None


def test_many_jobs_go_in_small_transactions(
    engine: Engine, make_job: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_JOBS", 2)
    monkeypatch.setattr(retention, "_CHUNKS", 3)
    for parts in (1, 4, 1, 1, 2):
        finished(engine, make_job(*[2] * parts))
    sizes: list[int] = []

    def noted(connection: Any, ids: list[UUID]) -> Any:
        sizes.append(len(ids))
        return original(connection, ids)

    original = retention._delete
    monkeypatch.setattr(retention, "_delete", noted)
    assert retention.remove_jobs(engine, days=30, now=LATER) == 5
    assert sizes == [2, 2, 1]
    with transaction(engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(chunk)).scalar_one() == 0


def test_whole_days_are_dropped(engine: Engine) -> None:
    day = datetime.now(UTC) - timedelta(days=100)
    with transaction(engine) as connection:
        predictions.ensure_partitions(connection, day)
        predictions.copy(connection, predicted(lower_bound(day), [1]))
        predictions.copy(connection, predicted(uuid7(), [1]))
    dropped = retention.drop_days(engine, days=90)
    assert f"prediction_block_{day:%Y%m%d}" in dropped
    with transaction(engine) as connection:
        left = connection.execute(sa.select(sa.func.count()).select_from(prediction)).scalar_one()
        names = [name for name, _ in retention._partitions(connection)]
    assert left == 1
    assert not set(dropped) & set(names)


def test_a_day_with_an_open_job_stays_without_what_others_left(engine: Engine, make_job: Callable[..., UUID]) -> None:
    old = datetime.now(UTC) - timedelta(days=100)
    stuck = make_job(2)
    with transaction(engine) as connection:
        predictions.ensure_partitions(connection, old)
        moved = lower_bound(old)
        connection.execute(
            sa.insert(job).from_select(
                [each.name for each in job.c],
                sa.select(*(sa.literal(moved) if each.name == "id" else each for each in job.c)).where(
                    job.c.id == stuck
                ),
            )
        )
        orphan = UUID(int=moved.int + 1)
        predictions.copy(connection, predicted(moved, [1]))
        predictions.copy(connection, predicted(orphan, [1]))
    retention.drop_days(engine, days=90)
    with transaction(engine) as connection:
        left = set(connection.execute(sa.select(prediction.c.job_id)).scalars())
        names = [name for name, _ in retention._partitions(connection)]
    assert left == {moved}
    assert f"prediction_block_{old:%Y%m%d}" in names
    assert f"prediction_block_{old + timedelta(days=1):%Y%m%d}" not in names, "later days do not wait for it"


def test_a_partition_that_is_read_is_left_for_the_next_time(
    engine: Engine, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOCK_TIMEOUT", "100ms")
    day = datetime.now(UTC) - timedelta(days=100)
    name = f"prediction_block_{day:%Y%m%d}"
    with transaction(engine) as connection:
        predictions.ensure_partitions(connection, day)
    with owner.begin() as reading:
        reading.execute(sa.text(f"SELECT * FROM {name}"))
        assert name not in retention.drop_days(engine, days=90)
    assert name in retention.drop_days(engine, days=90)


def test_a_job_whose_day_is_past_retention_is_gone_to_whoever_asks(client: FlaskClient) -> None:
    old = lower_bound(datetime.now(UTC) - timedelta(days=100))
    job_id = UUID(int=old.int | 0x7 << 76 | 0x2 << 62)
    for path in ("", "/results", "/results?include=inputs", "/errors"):
        assert client.get(f"/v1/jobs/{job_id}{path}").status_code == 410


def test_a_download_that_begins_while_its_job_goes_is_gone(
    client: FlaskClient, engine: Engine, make_job: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = finished(engine, make_job(3, 3))
    read = jobs.get

    def read_and_lose(*arguments: Any) -> Any:
        row = read(*arguments)
        retention.remove_jobs(engine, days=30, now=LATER)
        return row

    monkeypatch.setattr(jobs, "get", read_and_lose)
    answer = client.get(f"/v1/jobs/{job_id}/results")
    assert answer.status_code == 410


def test_trainings_that_ended_long_ago_go_but_for_the_last(engine: Engine, version_id: int) -> None:
    with transaction(engine) as connection:
        model_id = connection.execute(sa.text("SELECT model_id FROM model_version")).scalar_one()
        runs = {
            key: trainings.request(connection, model_id, kind, key, by="t")
            for kind, key in (("schedule", "2020-01-01"), ("schedule", "2020-02-01"), ("hand", "a"), ("hand", "b"))
        }
        long_ago = datetime.now(UTC) - timedelta(days=500)
        connection.execute(
            sa.update(training_run).where(training_run.c.id != runs["b"]).values(state="failed", finished_at=long_ago)
        )
    with transaction(engine) as connection:
        retention.sweep(connection, days=90, trail_days=400)
        left = set(connection.execute(sa.select(training_run.c.id)).scalars())
    assert left == {runs["2020-02-01"], runs["b"]}, "a slot that ran is not asked for again"


def test_transitions_of_alerts_go_when_they_were_told(engine: Engine, version_id: int) -> None:
    with transaction(engine) as connection:
        model_id = connection.execute(sa.text("SELECT model_id FROM model_version")).scalar_one()
        alert_id = uuid7()
        connection.execute(
            sa.text(
                'INSERT INTO alert (id, model_id, version_id, column_name, "check", state, machine) '
                "VALUES (:id, :model, :version, 'x', 'drift', 'firing', '{}')"
            ),
            {"id": alert_id, "model": model_id, "version": version_id},
        )
        event = {"alert_id": alert_id, "from_state": "ok", "to_state": "firing", "by": "t", "document": {}}
        long_ago = datetime.now(UTC) - timedelta(days=500)
        for values in ({"at": long_ago, "deliveries": {}}, {"at": long_ago, "deliveries": None}, {"deliveries": {}}):
            connection.execute(sa.insert(alert_event).values(**event, **values))
    with transaction(engine) as connection:
        retention.sweep(connection, days=90, trail_days=400)
        left = connection.execute(sa.select(alert_event.c.at, alert_event.c.deliveries)).all()
    assert len(left) == 2
    assert not any(row.at < datetime.now(UTC) - timedelta(days=400) and row.deliveries is not None for row in left)
