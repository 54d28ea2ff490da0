"""Quotas hold exactly, whoever submits at once, and what was taken is given back when its reason is gone."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from api.app import create_app
from api.limits import KNOWN_SECONDS
from api.tokens import create_token
from db import chunks, jobs, models, quotas, retention, usage
from db.chunks import Outcome
from db.engine import transaction
from db.ids import uuid7
from db.jobs import NewJob
from db.quotas import Quotas
from db.tables import chunk, job, tenant_usage
from deployment import validation
from errors import Conflict, OverQuota
from records.piece import Piece
from records.row_error import RowError
from settings import Settings, get_settings
from worker import sweeps

KEY = "k" * 64
AT_ONCE = 20
UNLIMITED = Quotas()


class Api:
    """Two applications on one database, as two processes of the API are."""

    def __init__(self, settings: Settings) -> None:
        self.apps = [create_app(settings) for _ in range(2)]
        self._headers = {"Authorization": f"Bearer {self.token(settings)}"}

    @staticmethod
    def token(settings: Settings, tenant: str = "default") -> str:
        return create_token(settings, subject="tests", tenant=tenant, scopes=["admin"], ttl=timedelta(minutes=5))

    def call(self, method: str, path: str, number: int = 0, **more: Any) -> Any:
        headers = {**self._headers, **more.pop("headers", {})}
        return self.apps[number % 2].test_client().open(path, method=method, headers=headers, **more)

    def submit(self, number: int = 0, rows: int | None = None, **more: Any) -> Any:
        inputs: Any = {"x": 1} if rows is None else [{"x": 1}] * rows
        body = {"model": "m", "version": "1.0.0", "inputs": inputs, **more}
        return self.call("POST", "/v1/jobs", number, json=body)

    def upload(self, lines: int, number: int = 0, **more: Any) -> Any:
        """A CSV whose length the API does not know."""
        body = io.BytesIO(b"x\n" + b"1234567\n" * lines)
        return self.call(
            "POST",
            "/v1/jobs?model=m&version=1.0.0",
            number,
            input_stream=body,
            content_type="text/csv",
            environ_overrides={"wsgi.input_terminated": True},
            **more,
        )

    def at_once(self, ask: Callable[[int], Any]) -> Counter[int]:
        """How often each status was answered to `AT_ONCE` requests that set off together."""
        ready = threading.Barrier(AT_ONCE)

        def one(number: int) -> int:
            ready.wait(30)
            return int(ask(number).status_code)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return Counter(pool.map(one, range(AT_ONCE)))

    def close(self) -> None:
        for app in self.apps:
            app.extensions["scorehouse"].close()


@pytest.fixture(autouse=True)
def counted(engine: Engine, version_id: int) -> None:
    """The version of the fixture came past the API, so nobody has counted its byte."""
    with transaction(engine) as connection:
        usage.recount(connection, "default")


@pytest.fixture
def settings(database_url: str, servers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("SCOREHOUSE_BROKER_URL", servers.broker_url)  # for the thread that publishes permits
    get_settings.cache_clear()
    key_file = tmp_path / "jwt.key"
    key_file.write_text(KEY)
    yield Settings(
        data_dir=tmp_path,
        database_url=database_url,
        broker_url=servers.broker_url,
        jwt_key_file=key_file,
        chunk_bytes=1_000,
    )
    get_settings.cache_clear()


@pytest.fixture
def api(settings: Settings, version_id: int) -> Iterator[Api]:
    api = Api(settings)
    yield api
    api.close()


@pytest.fixture
def allow(engine: Engine) -> Callable[..., None]:
    """Set quotas of the tenant `default`."""

    def set_limits(**limits: int | None) -> None:
        with transaction(engine) as connection:
            quotas.set_limits(connection, "default", limits, by="tests")

    return set_limits


def used(engine: Engine) -> usage.Usage:
    """What the tenant uses; the jobs themselves must say the same."""
    with transaction(engine) as connection:
        counted = usage.of(connection, "default")
        usage.recount(connection, "default")
        assert replace(usage.of(connection, "default"), now=counted.now) == counted
    return counted


def jobs_of(engine: Engine) -> int:
    with transaction(engine) as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(job)).scalar_one()


def test_open_jobs_are_exactly_as_many_as_allowed(api: Api, engine: Engine, allow: Callable[..., None]) -> None:
    allow(jobs_open=7)
    assert api.at_once(api.submit) == {202: 7, 429: AT_ONCE - 7}
    assert (used(engine).jobs_open, jobs_of(engine)) == (7, 7)
    refused = api.submit()
    problem = refused.get_json(force=True)
    assert (refused.mimetype, problem["type"]) == ("application/problem+json", "urn:scorehouse:problem:over-quota")
    assert (problem["quota"], problem["limit"], problem["used"]) == ("jobs_open", 7, 7)
    assert 0 < int(refused.headers["Retry-After"]) < 10


def test_open_uploads_count_as_open_jobs(api: Api, engine: Engine, allow: Callable[..., None]) -> None:
    allow(jobs_open=7)
    assert api.at_once(lambda number: api.upload(300, number)) == {202: 7, 429: AT_ONCE - 7}
    assert (used(engine).jobs_open, used(engine).rows_per_day, jobs_of(engine)) == (7, 7 * 300, 7)


def test_rows_of_a_day_are_exactly_as_many_as_allowed(api: Api, engine: Engine, allow: Callable[..., None]) -> None:
    allow(rows_per_day=10)
    assert api.at_once(lambda number: api.submit(number, rows=3)) == {202: 3, 429: AT_ONCE - 3}
    assert used(engine).rows_per_day == 9
    assert api.submit(rows=1).status_code == 202
    refused = api.submit(rows=1)
    assert refused.status_code == 429
    left = (used(engine).midnight - used(engine).now).total_seconds()
    assert left <= int(refused.headers["Retry-After"]) <= left + 10


def test_an_upload_that_passes_the_quota_leaves_nothing(api: Api, engine: Engine, allow: Callable[..., None]) -> None:
    allow(rows_per_day=5_000)
    assert api.upload(4_000).status_code == 202
    before = used(engine)
    refused = api.upload(4_000)
    assert (refused.status_code, refused.get_json(force=True)["quota"]) == (429, "rows_per_day")
    assert replace(used(engine), now=before.now) == before
    assert jobs_of(engine) == 1
    assert api.upload(1_000).status_code == 202


def test_uploads_that_compete_for_the_last_rows_waste_none(
    api: Api, engine: Engine, allow: Callable[..., None]
) -> None:
    """Each of them may be refused, as the other was when it took its share; but never are there more rows than allowed."""
    allow(rows_per_day=3_000)
    answers = api.at_once(lambda number: api.upload(1_000, number))
    assert set(answers) <= {202, 429}
    assert used(engine).rows_per_day == 1_000 * answers[202] <= 3_000
    while used(engine).rows_per_day < 3_000:
        assert api.upload(1_000).status_code == 202


def test_bytes_stored_are_the_packed_inputs(api: Api, engine: Engine, allow: Callable[..., None]) -> None:
    assert api.upload(4_000).status_code == 202
    with transaction(engine) as connection:
        packed = connection.execute(sa.select(sa.func.sum(sa.func.octet_length(chunk.c.payload)))).scalar_one()
        connection.execute(sa.delete(job))
        artefacts = 1  # of the version that is there
        usage.recount(connection, "default")
    assert used(engine).bytes_stored == artefacts
    allow(bytes_stored=packed + artefacts)
    forget_limits(api)
    assert api.upload(4_000).status_code == 202
    assert used(engine).bytes_stored == packed + artefacts
    refused = api.submit()
    assert (refused.status_code, refused.get_json(force=True)["quota"]) == (429, "bytes_stored")


def forget_limits(api: Api) -> None:
    """What the processes would do by themselves after `KNOWN_SECONDS`."""
    for app in api.apps:
        app.extensions["scorehouse"].limits._known.clear()


@pytest.mark.parametrize("end", ["finish", "cancel", "seal"])
def test_a_job_that_is_over_is_not_open(engine: Engine, make_job: Callable[..., UUID], end: str) -> None:
    job_id = make_job(2, 2, seal=False)
    with transaction(engine) as connection:
        usage.take(connection, "default", UNLIMITED, jobs=1)
    if end != "seal":
        with transaction(engine) as connection:
            jobs.seal(connection, job_id, rows=4, chunks=2, request_hash=None)
    if end == "cancel":
        with transaction(engine) as connection:
            jobs.cancel(connection, "default", job_id)
    else:
        claims = chunks.claim(engine, lane="bulk", count=2, owner="w", lease_seconds=30)
        for claim in claims:
            chunks.finish(engine, [Outcome(claim, claim.rows, [])], b"")
    if end == "seal":
        assert used(engine).jobs_open == 1
        with transaction(engine) as connection:
            assert jobs.seal(connection, job_id, rows=4, chunks=2, request_hash=None) == "succeeded"
    with transaction(engine) as connection:
        assert usage.of(connection, "default").jobs_open == 0


def test_an_abandoned_upload_gives_back_what_it_took(engine: Engine, version_id: int) -> None:
    job_id = abandoned_upload(engine, version_id)
    assert (used(engine).jobs_open, used(engine).rows_per_day) == (1, 3)
    sweeps.sweep(engine)
    assert (used(engine).jobs_open, used(engine).rows_per_day) == (0, 0)
    assert used(engine).bytes_stored == 1
    with transaction(engine) as connection:
        jobs.discard(connection, job_id)  # a second time is no harm
    assert (used(engine).jobs_open, used(engine).rows_per_day) == (0, 0)


def abandoned_upload(engine: Engine, version_id: int, **more: Any) -> UUID:
    new = NewJob(uuid7(), "default", version_id, "batch", "bulk", "csv", ["x"], "tests", **more)
    with transaction(engine) as connection:
        jobs.receive(connection, new, lease_seconds=60)
        usage.take(connection, "default", UNLIMITED, jobs=1)
    with transaction(engine) as connection:
        stored = chunks.add(connection, new, 0, Piece(1, 3, 2, b"1\n2\n3\n"))
        usage.grow(connection, "default", new.id, UNLIMITED, rows=3, bytes=stored, day=None)
        connection.execute(sa.update(job).values(upload_lease_until=sa.func.now() - sa.text("interval '1 hour'")))
    return new.id


def test_an_upload_of_yesterday_counts_to_yesterday(engine: Engine, version_id: int) -> None:
    abandoned_upload(engine, version_id)
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    with transaction(engine) as connection:
        connection.execute(sa.update(job).values(created_at=sa.func.now() - sa.text("interval '1 day'")))
        connection.execute(sa.text("UPDATE tenant_day SET day = day - 1"))
        assert usage.take(connection, "default", Quotas(rows_per_day=3), rows=2) > yesterday
        job_id, five = connection.execute(sa.select(job.c.id)).scalar_one(), Quotas(rows_per_day=5)
        assert usage.grow(connection, "default", job_id, five, rows=2, bytes=0, day=yesterday) == yesterday
    with pytest.raises(OverQuota, match="quota of 5 rows a day: 5 used, 1 more"), transaction(engine) as connection:
        usage.take(connection, "default", Quotas(rows_per_day=5), rows=1, day=yesterday)
    sweeps.sweep(engine)
    with transaction(engine) as connection:
        left = {row.day: row.rows for row in connection.execute(sa.text("SELECT day, rows FROM tenant_day"))}
    assert left[yesterday] == 0
    assert sum(left.values()) == 2


def test_housekeeping_mends_what_a_release_without_quotas_left(
    engine: Engine, make_job: Callable[..., UUID], settings: Settings
) -> None:
    make_job(1)
    with transaction(engine) as connection:
        connection.execute(sa.text("UPDATE tenant_usage SET jobs_open = 99"))
    sweeps.housekeeping(engine, settings)
    with transaction(engine) as connection:
        assert usage.of(connection, "default").jobs_open == 1


def test_retention_gives_the_bytes_back(api: Api, engine: Engine) -> None:
    assert api.submit(rows=0).status_code == 202  # is over at once
    job_id = UUID(api.submit(rows=5).get_json()["id"])
    with transaction(engine) as connection:
        jobs.cancel(connection, "default", job_id)
    assert used(engine).bytes_stored > 1
    assert retention.remove_jobs(engine, days=1, now=datetime.now(UTC) + timedelta(days=3)) == 2
    with transaction(engine) as connection:
        left = usage.of(connection, "default")
    assert (left.bytes_stored, left.jobs_open) == (1, 0)


def test_a_chunk_that_was_cut_in_two_counts_as_it_came(engine: Engine, api: Api) -> None:
    assert api.submit(rows=1_000).status_code == 202
    before = used(engine).bytes_stored
    for _ in range(2):
        chunks.claim(engine, lane="bulk", count=1, owner="w", lease_seconds=30, suspects=_ > 0)
        chunks.rescue(engine, poison_attempts=3, dead_owners=["w"])
    with transaction(engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(chunk)).scalar_one() == 2
    assert used(engine).bytes_stored == before


def test_a_retry_takes_rows_and_a_place(api: Api, engine: Engine, allow: Callable[..., None]) -> None:
    job_id = api.submit(rows=4).get_json()["id"]
    fail_all(engine)
    assert used(engine).jobs_open == 0
    allow(rows_per_day=7)
    forget_limits(api)
    refused = api.call("POST", f"/v1/jobs/{job_id}/retry")
    assert (refused.status_code, refused.get_json(force=True)["quota"]) == (429, "rows_per_day")
    assert (used(engine).jobs_open, used(engine).rows_per_day, jobs_of(engine)) == (0, 4, 1)
    allow(rows_per_day=8)
    forget_limits(api)
    assert api.call("POST", f"/v1/jobs/{job_id}/retry").status_code == 202
    assert (used(engine).jobs_open, used(engine).rows_per_day) == (1, 8)


def fail_all(engine: Engine) -> None:
    for claim in chunks.claim(engine, lane="interactive", count=10, owner="w", lease_seconds=30):
        errors = [
            RowError(row=claim.first_row + place, line=None, key=None, column="x", code="type", message="no", raw="")
            for place in range(claim.rows)
        ]
        chunks.finish(engine, [Outcome(claim, 0, errors)], b"")


def test_jobs_of_deployments_do_not_count(engine: Engine, version_id: int) -> None:
    with transaction(engine) as connection:
        version = replace(
            models.by_id(connection, version_id), golden=[{"inputs": "1", "prediction": "1", "probabilities": None}]
        )
        assert validation.submit(connection, version, uuid4())["rows"] == 1
    assert used(engine).jobs_open == 0
    for claim in chunks.claim(engine, lane="interactive", count=10, owner="w", lease_seconds=30):
        chunks.finish(engine, [Outcome(claim, claim.rows, [])], b"")
    with transaction(engine) as connection:
        found = connection.execute(sa.select(tenant_usage.c.jobs_open)).scalar_one()
    assert found == 0


def test_an_artefact_beyond_the_quota_is_not_stored(
    api: Api, engine: Engine, allow: Callable[..., None], tmp_path: Path
) -> None:
    def form(artefact: bytes, version: str) -> dict[str, Any]:
        files = {"reference": (io.BytesIO(b"x\n1\n"), "r.csv"), "artefact": (io.BytesIO(artefact), "m.skops")}
        return {"version": version, **files}

    def register(artefact: bytes, version: str) -> Any:
        data = form(artefact, version)
        return api.call("POST", "/v1/models/m/versions", data=data, content_type="multipart/form-data")

    for _ in range(2):  # the same version again counts once
        assert register(b"a" * 996, "2.0.0").status_code == 202
    assert used(engine).bytes_stored == 1 + 996 + 4
    allow(bytes_stored=1_500)
    forget_limits(api)
    refused = register(b"b" * 996, "3.0.0")
    problem = refused.get_json(force=True)
    assert (refused.status_code, problem["quota"], problem["used"]) == (429, "bytes_stored", 1_001)
    assert used(engine).bytes_stored == 1_001
    assert not [file for file in (tmp_path / "artefacts").rglob("*") if file.is_file() and b"b" in file.read_bytes()]
    assert register(b"b" * 495, "3.0.0").status_code == 202
    assert used(engine).bytes_stored == 1_500


def test_as_many_uploads_at_once_as_allowed(engine: Engine) -> None:
    limits = Quotas(uploads_at_once=2)

    def enter() -> UUID:
        with transaction(engine) as connection:
            return usage.enter(connection, "default", limits, lease_seconds=60)

    def outcome(_: int) -> str:
        try:
            enter()
        except OverQuota as exc:
            return exc.quota
        return "entered"

    first = enter()
    with ThreadPoolExecutor(8) as pool:
        assert Counter(pool.map(outcome, range(8))) == {"entered": 1, "uploads_at_once": 7}
    with transaction(engine) as connection:
        usage.leave(connection, "default", first)
    second = enter()
    with transaction(engine) as connection:  # its process died
        connection.execute(sa.text("UPDATE tenant_upload SET lease_until = now() - interval '1 second'"))
    enter()
    with pytest.raises(Conflict, match="given up"), transaction(engine) as connection:
        usage.stay(connection, "default", second, lease_seconds=60)


def test_a_place_is_free_when_its_upload_is_over(api: Api, engine: Engine, allow: Callable[..., None]) -> None:
    allow(uploads_at_once=1)
    for _ in range(3):
        assert api.upload(10).status_code == 202
    bad = api.call("POST", "/v1/jobs?model=m&version=1.0.0", data=b"y\n1\n", content_type="text/csv")
    assert bad.status_code == 422
    assert used(engine).uploads_at_once == 0
    allow(uploads_at_once=0)
    forget_limits(api)
    for path, kind in (
        ("/v1/jobs?model=m", "text/csv"),
        ("/v1/jobs?model=m", "multipart/form-data; boundary=b"),
        ("/v1/labels?model=m", "text/csv"),
        ("/v1/models/m/versions", "multipart/form-data; boundary=b"),
    ):
        refused = api.call("POST", path, data=b"x\n1\n", content_type=kind)
        assert (refused.status_code, refused.get_json(force=True)["quota"]) == (429, "uploads_at_once"), path
    assert api.submit().status_code == 202  # is no file


def test_a_change_acts_without_a_restart(api: Api, engine: Engine, allow: Callable[..., None]) -> None:
    allow(jobs_open=0)
    assert api.submit().status_code == 429
    allow(jobs_open=None)
    over = threading.Event()
    for _ in range(100):
        if api.submit().status_code == 202:
            break
        over.wait(KNOWN_SECONDS / 20)
    else:
        pytest.fail("the old limit still counts")


def test_the_tenant_sees_its_quota(api: Api, allow: Callable[..., None]) -> None:
    allow(rows_per_day=10, jobs_open=None)
    assert api.submit(rows=4).status_code == 202
    document = api.call("GET", "/v1/quota").get_json()
    assert document["tenant"] == "default"
    rows = document["rows_per_day"]
    assert (rows["limit"], rows["used"], rows["remaining"]) == (10, 4, 6)
    assert datetime.fromisoformat(rows["resets_at"]) > datetime.now(UTC)
    assert document["jobs_open"] == {"limit": None, "used": 1, "remaining": None}
    assert document["bytes_stored"]["used"] > 1
    assert document["requests_per_second"]["limit"] == 1_000


def test_tenants_have_quotas_of_their_own(settings: Settings, api: Api, allow: Callable[..., None]) -> None:
    allow(rows_per_day=0)
    assert api.submit().status_code == 429
    other = {"Authorization": f"Bearer {Api.token(settings, 'other')}"}
    document = api.call("GET", "/v1/quota", headers=other).get_json()
    assert (document["tenant"], document["rows_per_day"]["limit"]) == ("other", 100_000_000)


def test_defaults_come_from_the_settings_and_can_come_back(engine: Engine, settings: Settings) -> None:
    defaults = Quotas.of(settings.model_copy(update={"quota_jobs_open": 5, "quota_burst": "unlimited"}))
    assert (defaults.jobs_open, defaults.burst) == (5, None)
    with transaction(engine) as connection:
        quotas.set_limits(connection, "a", {"jobs_open": 9, "rows_per_day": None}, by="tests")
        quotas.set_limits(connection, "a", {"bytes_stored": 1}, by="tests")
        found = defaults.but(quotas.differing(connection, "a"))
        assert (found.jobs_open, found.rows_per_day, found.bytes_stored) == (9, None, 1)
        quotas.reset_limits(connection, "a", ["jobs_open", "rows_per_day"])
        assert quotas.differing(connection, "a") == {"bytes_stored": 1}
        assert [row.tenant for row in quotas.listing(connection)] == ["a"]
