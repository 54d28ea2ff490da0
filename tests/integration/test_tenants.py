"""A tenant never sees another's rows: not over any route, and not by a query that forgot whose rows it wants."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy import Engine
from sqlalchemy.exc import ProgrammingError
from test_api_guards import PROTECTED
from two_tenants import MINE, SYSTEM_TABLES, THEIRS, Tenant

from api.app import create_app
from api.tokens import create_token
from db.engine import TENANT_ROLE, create_engine, elevated, for_system, for_tenant, transaction
from db.ids import uuid7
from db.tables import metadata, prediction
from settings import Settings

OWNED = [*(table for name, table in metadata.tables.items() if name not in SYSTEM_TABLES), prediction]
# What each route needs so that only the tenant is in its way: a query and a body.
REQUESTS: dict[str, tuple[str, Any]] = {
    "/v1/jobs": ("", {"model": "{model}", "inputs": {"x": 1}}),
    "/predict": ("?model={model}", {"x": 1}),
    "/predict/batch": ("?model={model}", [{"x": 1}]),
    "/v1/labels": ("?model={model}", [{"key": "{key}", "label": "1"}]),
    "/v1/predictions": ("?model={model}&key={key}", None),
    "/v1/alerts": ("?model={model}", None),
    "/v1/models/<model>/audits": ("", {"kind": "drift", "window": "24h"}),
    "/v1/models/<model>/deployments": ("", {"version": "1.0.0"}),
    "/v1/models/<model>/drift": ("?window=24h", None),
    "/v1/models/<model>/accuracy": ("?window=24h", None),
    "/v1/alerts/<uuid:id>/suppress": ("", {"until": "2030-01-01T00:00:00Z"}),
}
IDS = {"jobs": "job", "alerts": "alert", "audits": "audit", "deployments": "deployment"}
IDS |= {"trainings": "training", "tokens": "token"}
# What nobody may change or remove, as `test_trail` shows; what tenants may use is not theirs to say.
UNCHANGEABLE = {"audit_trail", "tenant_quota"}
# They name no one's row: an answer without anything of others is all that is to be seen.
LISTS = {"GET /v1/jobs", "GET /v1/models", "GET /v1/alerts", "GET /v1/tokens", "GET /v1/audit-trail", "GET /v1/quota"}


@pytest.fixture
def tenants(engine: Engine) -> dict[str, Tenant]:
    with transaction(engine) as connection:
        return {name: Tenant(connection, name) for name in (MINE, THEIRS)}


@pytest.fixture
def api_engine(database_url: str) -> Iterator[Engine]:
    """As the API connects."""
    engine = create_engine(database_url, name="tests", role=TENANT_ROLE)
    yield engine
    engine.dispose()


@pytest.fixture
def http(database_url: str, tmp_path: Path) -> Iterator[FlaskClient]:
    (tmp_path / "jwt.key").write_text("k" * 64)
    app = create_app(Settings(data_dir=tmp_path, database_url=database_url, broker_url="redis://127.0.0.1:1/0"))
    app.extensions["settings_of_tests"] = tmp_path
    yield app.test_client()
    app.extensions["scorehouse"].close()


def bearer(http: FlaskClient, tenant: str) -> dict[str, str]:
    settings = Settings(data_dir=http.application.extensions["settings_of_tests"])
    token = create_token(settings, subject=tenant, tenant=tenant, scopes=["admin"], ttl=timedelta(minutes=5))
    return {"Authorization": f"Bearer {token}"}


def count(engine: Engine, table: sa.Table) -> int:
    with transaction(engine) as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_every_table_is_locked_or_known_to_be_the_installations(engine: Engine) -> None:
    with transaction(engine) as connection:
        locked = connection.execute(
            sa.text(
                "SELECT c.relname FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid "
                "WHERE c.relrowsecurity AND c.relnamespace = 'public'::regnamespace"
            )
        ).scalars()
        assert set(locked) == {table.name for table in OWNED} - {"prediction"}


@pytest.mark.parametrize("table", OWNED, ids=lambda table: table.name)
def test_without_a_where_a_tenant_sees_its_own_rows(
    api_engine: Engine, engine: Engine, tenants: dict[str, Tenant], table: sa.Table
) -> None:
    everything = count(engine, table)
    own = {name: count(for_tenant(api_engine, name), table) for name in tenants}
    assert own[MINE] >= 1
    assert own[THEIRS] >= 1
    assert own[MINE] + own[THEIRS] == everything
    assert count(api_engine, table) == 0, "a transaction that names no tenant sees nothing"
    assert count(for_tenant(api_engine, ""), table) == 0
    assert count(for_tenant(api_engine, f"{MINE}' OR '1'='1"), table) == 0
    assert count(for_system(api_engine), table) == everything


@pytest.mark.parametrize("name", sorted(SYSTEM_TABLES))
def test_what_is_the_installations_is_not_for_tenants(api_engine: Engine, name: str) -> None:
    assert count(for_system(api_engine), metadata.tables[name]) == 0
    with pytest.raises(ProgrammingError, match="permission denied"):
        count(for_tenant(api_engine, MINE), metadata.tables[name])


@pytest.mark.parametrize(
    "table", [table for table in OWNED[:-1] if table.name not in UNCHANGEABLE], ids=lambda table: table.name
)
def test_without_a_where_a_tenant_changes_and_removes_nothing_of_others(
    api_engine: Engine, engine: Engine, tenants: dict[str, Tenant], table: sa.Table
) -> None:
    theirs = count(for_tenant(api_engine, THEIRS), table)
    column = next(each for each in table.columns if each.name not in {"tenant", "id"})
    with transaction(for_tenant(api_engine, MINE)) as connection:
        changed = connection.execute(sa.update(table).values({column.name: column})).rowcount
    assert changed == count(engine, table) - theirs
    with transaction(for_tenant(api_engine, "nobody")) as connection:
        assert connection.execute(sa.delete(table)).rowcount == 0


def test_a_tenant_does_not_set_its_own_quotas(api_engine: Engine, tenants: dict[str, Tenant]) -> None:
    quotas = metadata.tables["tenant_quota"]
    for statement in (sa.update(quotas).values(limits={}), sa.delete(quotas)):
        with (
            pytest.raises(ProgrammingError, match="permission"),
            transaction(for_tenant(api_engine, MINE)) as connection,
        ):
            connection.execute(statement)


def test_a_tenant_puts_nothing_into_anothers_house(api_engine: Engine, tenants: dict[str, Tenant]) -> None:
    theirs = tenants[THEIRS].ids
    for statement in (
        sa.insert(metadata.tables["model"]).values(tenant=THEIRS, name="mine"),
        sa.insert(metadata.tables["label"]).values(
            model_id=theirs["model_id"], record_key="k", label="1", observed_at=sa.func.now()
        ),
        sa.insert(metadata.tables["audit_policy"]).values(model_id=theirs["model_id"]),
        sa.update(metadata.tables["job"]).values(tenant=THEIRS),
        sa.insert(metadata.tables["audit_trail"]).values(
            id=uuid7(), tenant=THEIRS, by="me", act="token.made", target="t"
        ),
        sa.insert(metadata.tables["token"]).values(jti="t", tenant=THEIRS),
    ):
        with (
            pytest.raises(ProgrammingError, match="row-level security"),
            transaction(for_tenant(api_engine, MINE)) as connection,
        ):
            connection.execute(statement)


def test_who_is_named_is_forgotten_with_the_transaction(api_engine: Engine, tenants: dict[str, Tenant]) -> None:
    """The connection goes back to the pool, and the next request that takes it is somebody else's."""
    jobs = metadata.tables["job"]
    assert count(for_tenant(api_engine, MINE), jobs) == 1
    assert count(api_engine, jobs) == 0
    with transaction(for_tenant(api_engine, MINE)) as connection:
        with elevated(connection):
            assert connection.execute(sa.select(sa.func.count()).select_from(jobs)).scalar_one() == 2
        assert connection.execute(sa.select(sa.func.count()).select_from(jobs)).scalar_one() == 1
    with pytest.raises(RuntimeError), transaction(for_tenant(api_engine, MINE)) as connection, elevated(connection):
        raise RuntimeError
    assert count(for_tenant(api_engine, MINE), jobs) == 1


def test_nobody_who_logs_in_owns_anything(engine: Engine, api_engine: Engine) -> None:
    with transaction(api_engine) as connection:
        for statement in (
            "DROP TABLE job",
            "ALTER TABLE job DISABLE ROW LEVEL SECURITY",
            "DROP POLICY of_tenant ON job",
        ):
            with pytest.raises(ProgrammingError, match="must be owner"), connection.begin_nested():
                connection.execute(sa.text(statement))
        with pytest.raises(ProgrammingError, match="permission denied"), connection.begin_nested():
            connection.execute(sa.text("SELECT scorehouse_drop_partition('prediction_block_20260101')"))
        with pytest.raises(ProgrammingError, match="permission denied"), connection.begin_nested():
            connection.execute(sa.text("TABLE prediction_block_default"))
    with transaction(engine) as connection, pytest.raises(sa.exc.DBAPIError, match="no name of a partition"):
        connection.execute(sa.text("SELECT scorehouse_drop_partition('job')"))


@pytest.mark.parametrize(("method", "rule"), [(method, rule) for method, rule, _ in PROTECTED])
def test_every_route_with_anothers_ids_answers_as_for_ids_that_nobody_has(
    http: FlaskClient, tenants: dict[str, Tenant], engine: Engine, method: str, rule: str
) -> None:
    theirs = tenants[THEIRS]
    places = {"{model}": theirs.model, "<model>": theirs.model, "{key}": theirs.key, "<version>": "1.0.0"}
    kind = next((IDS[part] for part in reversed(rule.split("/")) if part in IDS), None)
    if "<uuid:id>" in rule:
        assert kind is not None
        places["<uuid:id>"] = str(theirs.ids[kind])
    nobodys = {**places, "{model}": "nobodys", "<model>": "nobodys", "{key}": "k", "<uuid:id>": str(uuid7())}
    before = _everything(engine)
    told, expected = (_ask(http, method, rule, each) for each in (places, nobodys))
    assert theirs.name not in told.get_data(as_text=True).replace(theirs.model, "")
    assert told.status_code == expected.status_code
    if f"{method} {rule}" not in LISTS:
        # What is of the whole installation is not for a tenant's admin; a registration is a form, of a model of any name;
        # a token is made for the own tenant, and names nobody's rows.
        wanted = {"GET /metrics": 403, "POST /v1/models/<model>/versions": 415, "POST /v1/tokens": 422}.get(
            f"{method} {rule}", 404
        )
        assert told.status_code == wanted, told.get_data(as_text=True)
        said = told.get_json(force=True)["detail"]
        for place, other in places.items():
            said = said.replace(other, nobodys[place])
        assert said == expected.get_json(force=True)["detail"], "it does not tell that somebody has it"
    assert _everything(engine) == before


def test_what_is_mine_is_there(http: FlaskClient, tenants: dict[str, Tenant]) -> None:
    """Else the test above would prove nothing."""
    mine = tenants[MINE]
    for path in (
        f"/v1/jobs/{mine.ids['job']}",
        f"/v1/models/{mine.model}",
        f"/v1/models/{mine.model}/versions/1.0.0",
        f"/v1/models/{mine.model}/deployments/{mine.ids['deployment']}",
        f"/v1/models/{mine.model}/trainings/{mine.ids['training']}",
        f"/v1/alerts/{mine.ids['alert']}",
        f"/v1/predictions?model={mine.model}&key={mine.key}",
    ):
        answer = http.get(path, headers=bearer(http, MINE))
        assert answer.status_code == 200, (path, answer.get_data(as_text=True))


def _ask(http: FlaskClient, method: str, rule: str, places: dict[str, str]) -> Any:
    query, body = REQUESTS.get(rule, ("", None))
    path = rule + query

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            for place, content in places.items():
                value = value.replace(place, content)
        elif isinstance(value, dict):
            return {name: filled(each) for name, each in value.items()}
        elif isinstance(value, list):
            return [filled(each) for each in value]
        return value

    given = {} if method == "GET" else {"json": filled(body or {})}
    headers = {**bearer(http, MINE), "X-Forwarded-For": "203.0.113.7"}
    return http.open(filled(path), method=method, headers=headers, **given)


def _everything(engine: Engine) -> dict[str, int]:
    return {table.name: count(engine, table) for table in OWNED}
