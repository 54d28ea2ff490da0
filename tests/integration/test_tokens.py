"""Keys that change, tokens that are revoked, and who may make which, over HTTP."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import forging
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI
from sqlalchemy import Engine

from api import keys
from api.app import create_app
from api.issuing import ensure_admin_token
from api.revocations import LONGEST_SECONDS, REFRESH_SECONDS, Revocations
from api.tokens import BEYOND_ADMIN, SCOPES, create_token, make_token
from api.verification import Verifier
from db import tokens
from db.engine import create_engine, transaction
from errors import Conflict, NotFound, Unauthorized, Unavailable
from settings import Settings

MINUTES = timedelta(minutes=5)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    (tmp_path / "jwt.key").write_text("k" * 64)
    (tmp_path / "jwt.key").chmod(0o600)
    return Settings(
        data_dir=tmp_path,
        database_url=database_url,
        broker_url="redis://127.0.0.1:1/0",
        jwks_file=forging.write_key_set(tmp_path / "jwks.json", forging.rsa_jwk()),
        jwks_issuer=forging.OUTSIDE,
        jwks_audience=forging.OUTSIDE_AUDIENCE,
        api_host="192.0.2.1",  # nothing listens; what is open on loopback is not open here
    )


@pytest.fixture
def make_app(settings: Settings) -> Iterator[Callable[..., OpenAPI]]:
    """Applications as two processes would have them: they share files and the database alone."""
    made: list[OpenAPI] = []

    def make(**changed: Any) -> OpenAPI:
        made.append(create_app(settings.model_copy(update=changed)))
        return made[-1]

    yield make
    for app in made:
        app.extensions["scorehouse"].close()


@pytest.fixture
def http(make_app: Callable[..., OpenAPI]) -> FlaskClient:
    return make_app().test_client()


def headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def admin(settings: Settings, tenant: str = "default", *scopes: str, ttl: timedelta = MINUTES) -> dict[str, str]:
    return headers(create_token(settings, subject="boss", tenant=tenant, scopes=scopes or ("admin",), ttl=ttl))


def status(http: FlaskClient, token: str) -> int:
    return http.get("/v1/jobs", headers=headers(token)).status_code


def made(http: FlaskClient, by: dict[str, str], **wanted: Any) -> Any:
    return http.post(
        "/v1/tokens", headers=by, json={"subject": "app", "scopes": ["jobs:read"], "ttl_seconds": 60} | wanted
    )


def test_a_rotated_key_goes_on_verifying_until_it_is_forgotten(
    settings: Settings, make_app: Callable[..., OpenAPI]
) -> None:
    path, processes = settings.data_dir / "jwt.key", [make_app().test_client() for _ in range(2)]
    before = create_token(settings, subject="s", scopes=["jobs:read"], ttl=MINUTES)
    assert [status(http, before) for http in processes] == [200, 200]
    fresh = keys.rotate(path)
    after = make_token(settings, subject="s", scopes=["jobs:read"], ttl=MINUTES)
    assert after.kid == fresh
    assert [key.kid for key in keys.read(path)] == [fresh, keys.FIRST_KEY]
    assert [status(http, token) for http in processes for token in (before, after.text)] == [200] * 4
    with pytest.raises(Conflict, match="token rotate"):
        keys.forget(path, fresh)
    with pytest.raises(NotFound, match=fresh):
        keys.forget(path, "other")
    keys.forget(path, keys.FIRST_KEY)
    assert [status(http, token) for http in processes for token in (before, after.text)] == [401, 200] * 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in settings.data_dir.iterdir() if each.name.startswith(".")] == []


def test_rotations_at_once_lose_no_key(settings: Settings) -> None:
    path = settings.data_dir / "jwt.key"
    rotating = [threading.Thread(target=keys.rotate, args=(path,)) for _ in range(8)]
    for thread in rotating:
        thread.start()
    for thread in rotating:
        thread.join()
    assert len({key.kid for key in keys.read(path)}) == 9


def test_a_key_never_shows_its_secret(settings: Settings) -> None:
    key = keys.read(settings.data_dir / "jwt.key")[0]
    assert "kkkk" not in repr(key)
    token = make_token(settings, subject="s", scopes=["jobs:read"], ttl=MINUTES)
    assert token.text not in repr(token)


def test_a_broken_key_file_changes_nothing_until_it_is_mended(
    settings: Settings, http: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    path = settings.data_dir / "jwt.key"
    token = create_token(settings, subject="s", scopes=["jobs:read"], ttl=MINUTES)
    path.write_text('{"keys": [')
    assert status(http, token) == 200
    path.unlink()
    assert status(http, token) == 200
    assert caplog.text.count("keys_not_read") == 2
    path.write_text("x" * 64)
    assert status(http, token) == 401


def test_the_issuers_keys_are_read_again_when_they_change(settings: Settings, http: FlaskClient) -> None:
    assert settings.jwks_file is not None
    rsa, ed = forging.outside(), forging.outside({"alg": "EdDSA", "kid": "idp-ed"}, sign=forging.ED_KEY.sign)
    assert (status(http, rsa), status(http, ed)) == (200, 401)
    forging.write_key_set(settings.jwks_file, forging.ed_jwk())
    assert (status(http, rsa), status(http, ed)) == (401, 200)
    forging.write_key_set(settings.jwks_file)
    assert (status(http, rsa), status(http, ed)) == (401, 401)


def test_a_token_is_made_and_revoked_over_http(settings: Settings, http: FlaskClient) -> None:
    by = admin(settings)
    answer = made(http, by)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    document = answer.get_json()
    assert (document["tenant"], document["scopes"], document["created_by"]) == ("default", ["jobs:read"], "boss")
    assert status(http, document["token"]) == 200
    listed = http.get("/v1/tokens", headers=by).get_json()["tokens"]
    assert [each["jti"] for each in listed] == [document["jti"]]
    assert document["token"] not in json.dumps(listed)
    for _ in range(2):
        ended = http.post(f"/v1/tokens/{document['jti']}/revoke", headers=by, json={"why": "lost"}).get_json()
        assert (ended["revoked_by"], ended["why"]) == ("boss", "lost")
        assert status(http, document["token"]) == 401
    problem = http.get("/v1/jobs", headers=headers(document["token"])).get_json(force=True)
    assert "revoked" in problem["detail"]


def test_tokens_are_listed_page_by_page(settings: Settings, http: FlaskClient) -> None:
    by = admin(settings)
    jtis = [made(http, by, subject=f"app-{number % 2}").get_json()["jti"] for number in range(5)]
    seen, after = [], None
    while True:
        page = http.get("/v1/tokens", headers=by, query_string={"limit": 2, "after": after}).get_json()
        seen += [each["jti"] for each in page["tokens"]]
        after = page["next"]
        if after is None:
            break
    assert sorted(seen) == sorted(jtis)
    assert seen == sorted(jtis, reverse=True)
    found = http.get("/v1/tokens?subject=app-1", headers=by).get_json()["tokens"]
    assert {each["jti"] for each in found} == {jtis[1], jtis[3]}


def test_a_token_makes_none_that_is_wider_than_itself(settings: Settings, http: FlaskClient) -> None:
    by = admin(settings)
    assert made(http, by, scopes=[scope for scope in SCOPES if scope not in BEYOND_ADMIN]).status_code == 201
    assert made(http, by, scopes=["metrics:read"]).status_code == 403
    assert made(http, by, ttl_seconds=301).status_code == 403
    assert made(http, by, tenant="other").status_code == 422
    assert made(http, by, scopes=["root"]).status_code == 422
    assert made(http, by, scopes=["jobs:read admin"]).status_code == 422
    assert made(http, by, scopes=[]).status_code == 422
    assert made(http, by, ttl_seconds=0).status_code == 422
    assert made(http, by, subject="a\r\nb").status_code == 422
    assert made(http, admin(settings, "default", *(set(SCOPES) - {"admin"}))).status_code == 403
    both = admin(settings, "default", "admin", "metrics:read")
    assert made(http, both, scopes=["metrics:read"]).status_code == 201


def test_an_outside_issuers_token_makes_no_token_of_ours(http: FlaskClient) -> None:
    """It would outlive the trust in that issuer."""
    assert http.get("/v1/tokens", headers=headers(forging.outside())).status_code == 200
    assert made(http, headers(forging.outside())).status_code == 403


def test_an_admin_is_no_admin_of_the_installation(settings: Settings, http: FlaskClient, engine: Engine) -> None:
    mine = made(http, admin(settings)).get_json()
    other = admin(settings, "other")
    assert http.get("/v1/tokens", headers=other).get_json()["tokens"] == []
    for jti in (mine["jti"], "01a20508-40b5-7e8c-ab98-02d7c22cfdcb"):
        assert http.post(f"/v1/tokens/{jti}/revoke", headers=other, json={}).status_code == 404
    assert status(http, mine["token"]) == 200
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM token")).scalar_one() == 1


def test_what_a_token_made_ends_with_it(settings: Settings, http: FlaskClient, engine: Engine) -> None:
    chief = make_token(settings, subject="chief", scopes=["admin"], ttl=MINUTES)
    child = made(http, headers(chief.text), scopes=["admin"], ttl_seconds=200).get_json()
    grandchild = made(http, headers(child["token"])).get_json()
    other = made(http, admin(settings)).get_json()
    with transaction(engine) as connection:
        assert tokens.revoke(connection, None, chief.jti, by="root", why=None) == 3
    http.application.extensions["scorehouse"].revocations.changed()
    given = (chief.text, child["token"], grandchild["token"], other["token"])
    assert [status(http, token) for token in given] == [401, 401, 401, 200]


def test_what_was_made_with_a_forgotten_key_can_be_ended(settings: Settings, http: FlaskClient, engine: Engine) -> None:
    """Whoever stole a key forges an admin's token, and with that asks for one of the next key."""
    stolen = create_token(settings, subject="thief", scopes=["admin"], ttl=MINUTES)
    fresh = keys.rotate(settings.data_dir / "jwt.key")
    kept = made(http, headers(stolen)).get_json()
    assert kept["kid"] == fresh
    keys.forget(settings.data_dir / "jwt.key", keys.FIRST_KEY)
    http.application.extensions["scorehouse"].revocations.changed()
    assert status(http, kept["token"]) == 401
    with transaction(engine) as connection:
        assert tokens.revoke_children_of_key(connection, keys.FIRST_KEY, by="root", why=None) == 1


def test_what_a_token_made_while_it_was_revoked_is_no_good(engine: Engine) -> None:
    """Its request was let in before, and committed after."""
    later = datetime.now(UTC) + timedelta(days=1)
    with transaction(engine) as connection:
        tokens.revoke(connection, None, "stolen", by="root", why=None)
        for jti, parent in (("child", "stolen"), ("grandchild", "child"), ("stranger", "other")):
            new = tokens.NewToken(jti, "local", "s", "default", ["admin"], later, parent, "local")
            tokens.record(connection, new, by="thief")
        assert tokens.revoked(connection, ["local"]) == {"stolen", "child", "grandchild"}
        assert tokens.revoked(connection, ["next"]) == {"stolen", "child", "grandchild", "stranger"}


def test_a_token_that_is_not_on_record_can_be_revoked(settings: Settings, http: FlaskClient, engine: Engine) -> None:
    ours, theirs = make_token(settings, subject="s", scopes=["jobs:read"], ttl=MINUTES), forging.outside(jti="theirs")
    assert (status(http, ours.text), status(http, theirs)) == (200, 200)
    with transaction(engine) as connection:
        for jti in (ours.jti, "theirs"):
            assert tokens.revoke(connection, None, jti, by="root", why=None) == 1
    http.application.extensions["scorehouse"].revocations.changed()
    assert (status(http, ours.text), status(http, theirs)) == (401, 401)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_another_process_heeds_a_revocation_in_bounded_time(settings: Settings, engine: Engine) -> None:
    clock = Clock()
    here = Revocations(engine, lambda: ["local"], clock)
    caller = Verifier(settings).read(create_token(settings, subject="s", scopes=["admin"], ttl=MINUTES))
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *found: statements.append(found[2]))
    for _ in range(100):
        here.check(caller)
    assert len(statements) == 1, "one query, not one per request"
    with transaction(engine) as connection:
        tokens.revoke(connection, None, caller.jti, by="elsewhere", why=None)
    clock.now += REFRESH_SECONDS / 2
    here.check(caller)
    clock.now += REFRESH_SECONDS
    with pytest.raises(Unauthorized, match="revoked"):
        here.check(caller)
    assert REFRESH_SECONDS < LONGEST_SECONDS <= 5


def test_without_the_database_nothing_older_counts(settings: Settings, engine: Engine) -> None:
    clock = Clock()
    caller = Verifier(settings).read(create_token(settings, subject="s", scopes=["admin"], ttl=MINUTES))
    away = create_engine("postgresql://nobody@127.0.0.1:1/nothing", name="tests")
    here = Revocations(engine, lambda: ["local"], clock)
    here.check(caller)
    here._engine = away
    clock.now += REFRESH_SECONDS + 0.5
    here.check(caller)  # known well enough
    clock.now += LONGEST_SECONDS
    with pytest.raises(Unavailable):
        here.check(caller)
    with pytest.raises(Unavailable):  # without another attempt so soon
        here.check(caller)
    here.check(caller, without_database=True)
    here._engine = engine
    clock.now += 1.5
    here.check(caller)
    away.dispose()


def test_what_tells_of_an_outage_answers_in_one(settings: Settings, make_app: Callable[..., OpenAPI]) -> None:
    http = make_app(database_url="postgresql://nobody@127.0.0.1:1/nothing").test_client()
    token = headers(create_token(settings, subject="prometheus", scopes=list(SCOPES), ttl=MINUTES))
    assert http.get("/metrics", headers=token).status_code == 200
    answer = http.get("/v1/jobs", headers=token)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_the_admin_token_is_made_anew_when_it_is_no_good(settings: Settings, engine: Engine) -> None:
    file = settings.data_dir / "admin.token"

    def ensured() -> str:
        with transaction(engine) as connection:
            ensure_admin_token(connection, settings, by="root")
        return file.read_text().strip()

    first = ensured()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ensured() == first
    with transaction(engine) as connection:
        assert tokens.revoke_subject(connection, None, "admin", by="root", why=None) == 1
    second = ensured()
    assert second != first
    keys.rotate(settings.data_dir / "jwt.key")
    assert ensured() == second
    keys.forget(settings.data_dir / "jwt.key", keys.FIRST_KEY)
    assert ensured() not in (first, second)
    with engine.connect() as connection:
        assert [row.created_by for row in tokens.page(connection, "default", limit=10)] == ["root"] * 3


def test_tokens_are_forgotten_some_time_after_they_expired(settings: Settings, engine: Engine) -> None:
    now = datetime.now(UTC)
    ends = {"long ago": now - timedelta(days=31), "lately": now - timedelta(days=1), "later": now + timedelta(days=1)}
    with transaction(engine) as connection:
        for jti, end in ends.items():
            new = tokens.NewToken(jti, "local", "s", "default", ["admin"], end)
            tokens.record(connection, new, by="tests")
            tokens.revoke(connection, "default", jti, by="tests", why=None)
        tokens.revoke(connection, None, "unheard of", by="tests", why=None)
    with transaction(engine) as connection:
        assert tokens.revoked(connection, ["local"]) == {"later", "unheard of"}
        assert tokens.sweep(connection) == 1
        assert {row.jti for row in tokens.page(connection, "default", limit=10)} == {"lately", "later"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"scopes": ["root"]}, "unknown"),
        ({"scopes": []}, "missing"),
        ({"tenant": "a b"}, "no tenant's name"),
        ({"tenant": "t" * 64}, "no tenant's name"),
        ({"tenant": "ok\n"}, "no tenant's name"),
        ({"subject": ""}, "subject"),
        ({"subject": "a\nb"}, "subject"),
        ({"ttl": timedelta(0)}, "positive"),
        ({"ttl": timedelta(days=367)}, "at most 366 days"),
    ],
)
def test_a_token_that_would_not_be_believed_is_not_made(settings: Settings, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make_token(settings, **{"subject": "s", "scopes": ["admin"], "ttl": MINUTES, **wrong})
