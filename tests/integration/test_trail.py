"""The audit trail: an entry for each privileged act, in its transaction, and never another word about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from api.app import create_app
from api.tokens import make_token
from db import alerts, models, slots, trail
from db.engine import transaction
from db.models import NewVersion
from db.tables import model, model_version
from errors import Conflict
from settings import Settings, get_settings
from training.promotion import promote
from worker import sweeps


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    (tmp_path / "jwt.key").write_text("k" * 64)
    return Settings(data_dir=tmp_path, database_url=database_url, broker_url="redis://127.0.0.1:1/0")


@pytest.fixture
def http(settings: Settings, servers: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    monkeypatch.setenv("SCOREHOUSE_BROKER_URL", servers.broker_url)  # of the permits, which deployments ask for
    get_settings.cache_clear()
    app = create_app(settings)
    yield app.test_client()
    app.extensions["scorehouse"].close()
    get_settings.cache_clear()


def entries(engine: Engine, **wanted: Any) -> list[tuple[str, str, str]]:
    """by, act, target; the first one first."""
    with engine.connect() as connection:
        rows = trail.page(connection, None, limit=100, **wanted)
    return [(row.by, row.act, row.target) for row in reversed(rows)]


def second_version(engine: Engine, version_id: int) -> None:
    with transaction(engine) as connection:
        row = connection.execute(sa.select(model_version).where(model_version.c.id == version_id)).one()
        values = {name: value for name, value in row._mapping.items() if name not in {"id", "created_at"}}
        connection.execute(sa.insert(model_version).values(**values | {"version": "2.0.0"}))


def put_into_production(engine: Engine, version: str) -> None:
    with transaction(engine) as connection:
        found = models.get(connection, "default", "m")
        before = slots.aliases(connection, found.id).get("production")
        target = models.resolve(connection, "default", "m", version)
        slots.put_into_production(connection, found.id, target.id, previous=before)


def test_each_act_over_http_leaves_its_entry(
    settings: Settings, http: FlaskClient, engine: Engine, version_id: int
) -> None:
    second_version(engine, version_id)
    put_into_production(engine, "1.0.0")
    put_into_production(engine, "2.0.0")
    with transaction(engine) as connection:
        model_id = connection.execute(sa.select(model.c.id)).scalar_one()
        machine = {"state": "firing", "severity": "critical", "value": 1.0, "fired_at": "2026-01-01T00:00:00Z"}
        alert_id = alerts.put(
            connection, model_id=model_id, version_id=version_id, column="x", check="drift", machine=machine
        )
    token = make_token(settings, subject="ada", scopes=["admin"], ttl=timedelta(minutes=5))

    def ask(method: str, path: str, **body: Any) -> Any:
        answer = http.open(path, method=method, json=body, headers={"Authorization": f"Bearer {token.text}"})
        assert answer.status_code < 300, answer.data
        return answer.get_json()

    begun = ask("POST", "/v1/models/m/deployments", version="1.0.0", why="better")
    ask("POST", f"/v1/models/m/deployments/{begun['id']}/cancel")
    ask("POST", "/v1/models/m/rollback")
    ask("PUT", "/v1/models/m/audit-policy", every_hours=2)
    ask("PUT", "/v1/models/m/training-policy", every_days=3)
    ask("POST", "/v1/models/m/trainings")
    ask("POST", f"/v1/alerts/{alert_id}/ack")
    ask("POST", f"/v1/alerts/{alert_id}/suppress", until="2100-01-01T00:00:00Z")
    made = ask("POST", "/v1/tokens", subject="app", scopes=["jobs:read"], ttl_seconds=60)
    ask("POST", f"/v1/tokens/{made['jti']}/revoke", why="lost")
    assert entries(engine) == [
        ("ada", "deployment.begun", "m@1.0.0"),
        ("ada", "deployment.canceled", "m@1.0.0"),
        ("ada", "deployment.rolled_back", "m@1.0.0"),
        ("ada", "audit_policy.changed", "m"),
        ("ada", "training_policy.changed", "m"),
        ("ada", "training.asked", "m"),
        ("ada", "alert.acknowledged", str(alert_id)),
        ("ada", "alert.suppressed", str(alert_id)),
        ("ada", "token.made", made["jti"]),
        ("ada", "token.revoked", made["jti"]),
    ]
    listed = ask("GET", "/v1/audit-trail")["entries"]
    assert len(listed) == 10
    assert {entry["token"] for entry in listed} == {token.jti}
    assert {entry["tenant"] for entry in listed} == {"default"}
    assert listed[0]["details"] == {"subject": "app", "why": "lost"}
    assert not any(made["token"] in str(entry) or token.text in str(entry) for entry in listed)


def test_what_acts_by_itself_leaves_an_entry(engine: Engine, version_id: int) -> None:
    with transaction(engine) as connection:
        promote(connection, "default", "m", "1.0.0", why="better by 2 %")
    assert entries(engine) == [("training", "deployment.begun", "m@1.0.0")]
    with engine.connect() as connection:
        assert trail.page(connection, "default", limit=1)[0].token_jti is None


def test_a_registration_leaves_an_entry_and_the_same_again_none(engine: Engine) -> None:
    new = NewVersion(
        tenant="default",
        model="n",
        version="1.0.0",
        digest="sha256:0",
        reference_digest="sha256:1",
        format="skops",
        runtime="sklearn",
        size=1,
        key_column=None,
        target_column=None,
        trusted=False,
        created_by="ada",
    )
    for _ in range(2):
        with transaction(engine) as connection:
            models.add_version(connection, new)
    assert entries(engine) == [("ada", "version.registered", "n@1.0.0")]


def test_an_act_that_fails_leaves_none(http: FlaskClient, settings: Settings, engine: Engine, version_id: int) -> None:
    token = make_token(settings, subject="ada", scopes=["admin"], ttl=timedelta(minutes=5)).text
    for _ in range(2):
        http.post("/v1/models/m/rollback", headers={"Authorization": f"Bearer {token}"})
    assert entries(engine) == []

    def fail_after_it() -> None:
        with transaction(engine) as connection:
            trail.record(connection, tenant="default", by="ada", act="quota.changed", target="default")
            raise Conflict("too late")

    with pytest.raises(Conflict):
        fail_after_it()
    assert entries(engine) == []


def test_entries_are_found_by_act_and_person_page_by_page(
    http: FlaskClient, settings: Settings, engine: Engine
) -> None:
    with transaction(engine) as connection:
        for number in range(5):
            trail.record(connection, tenant="default", by="ada", act="quota.changed", target=str(number))
        trail.record(connection, tenant="default", by="bob", act="token.made", target="t")
        trail.record(connection, tenant="other", by="ada", act="token.made", target="theirs")
        trail.record(connection, tenant=None, by="root", act="key.rotated", target="k")

    def listed(tenant: str, scopes: list[str], **query: Any) -> Any:
        token = make_token(settings, subject="s", tenant=tenant, scopes=scopes, ttl=timedelta(minutes=5)).text
        return http.get("/v1/audit-trail", query_string=query, headers={"Authorization": f"Bearer {token}"})

    def targets(**query: Any) -> list[str]:
        return [entry["target"] for entry in listed("default", ["admin"], **query).get_json()["entries"]]

    assert targets() == ["t", "4", "3", "2", "1", "0"]
    assert targets(by="bob") == targets(act="token.made") == ["t"]
    first = listed("default", ["admin"], limit=4).get_json()
    assert UUID(first["next"])
    assert targets(after=first["next"]) == ["1", "0"]
    assert [entry["target"] for entry in listed("other", ["admin"]).get_json()["entries"]] == ["theirs"]
    assert listed("default", ["audits:read"]).status_code == 403
    assert listed("default", ["admin"], act="other").status_code == 422


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_trail SET by = 'somebody else'",
        "DELETE FROM audit_trail",
        "TRUNCATE audit_trail",
        "TRUNCATE token, audit_trail",
    ],
)
def test_the_database_keeps_it_append_only(engine: Engine, owner: Engine, statement: str) -> None:
    """Those who work here have no right to it, and the owner of the tables is held back from a slip."""
    with transaction(engine) as connection:
        trail.record(connection, tenant="default", by="ada", act="quota.changed", target="default")
    for whose, told in ((engine, "permission denied"), (owner, "append-only")):
        with pytest.raises(DBAPIError, match=told) as refused, transaction(whose) as connection:
            connection.execute(sa.text(statement))
        assert isinstance(refused.value.orig, psycopg2.Error)
    assert entries(engine) == [("ada", "quota.changed", "default")]


def test_retention_removes_what_is_old_and_nothing_younger_than_a_month(engine: Engine, owner: Engine) -> None:
    with transaction(owner) as connection:
        for days in (401, 100, 29, 0):
            trail.record(connection, tenant="default", by="ada", act="quota.changed", target=str(days))
        connection.execute(sa.text("ALTER TABLE audit_trail DISABLE TRIGGER append_only"))
        connection.execute(sa.text("UPDATE audit_trail SET at = now() - make_interval(days => target::int)"))
        connection.execute(sa.text("ALTER TABLE audit_trail ENABLE TRIGGER append_only"))
    sweeps.housekeeping(engine, Settings(trail_days=400))
    for days, left in ((400, ["100", "29", "0"]), (30, ["29", "0"]), (0, ["29", "0"])):
        if days < 400:
            with transaction(engine) as connection:
                trail.sweep(connection, days=days)
        assert sorted((target for _, _, target in entries(engine)), key=int, reverse=True) == left
