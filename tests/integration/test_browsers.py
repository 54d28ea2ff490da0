"""What answers tell browsers, and which of them may ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from pydantic import ValidationError

from api.app import create_app
from api.tokens import create_token
from settings import Settings

ORIGIN = "https://app.example"
PATHS = ["/health/live", "/openapi.json", "/docs", "/docs/swagger-ui.css", "/v1/jobs", "/v1/nowhere", "/metrics"]
MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def make_client(database_url: str, tmp_path: Path) -> Iterator[MakeClient]:
    key_file = tmp_path / "jwt.key"
    key_file.write_text("k" * 64)
    apps = []

    def make(**settings: str) -> FlaskClient:
        given = Settings(
            data_dir=tmp_path,
            database_url=database_url,
            broker_url="redis://127.0.0.1:1/0",
            jwt_key_file=key_file,
            **settings,  # type: ignore[arg-type]
        )
        app = create_app(given)
        apps.append(app)
        client = app.test_client()
        token = create_token(given, subject="tests", tenant="default", scopes=["admin"], ttl=timedelta(minutes=5))
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        return client

    yield make
    for app in apps:
        app.extensions["scorehouse"].close()


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_protected(make_client: MakeClient, path: str) -> None:
    headers = make_client().get(path, headers={"Origin": ORIGIN}).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert (headers["Cache-Control"] == "no-store") is not path.endswith(".css")
    assert not [name for name in dict(headers) if name.startswith("Access-Control-")]


def test_a_preflight_is_refused_by_default(make_client: MakeClient) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    answer = make_client().options("/v1/jobs", headers={**asked, "Authorization": ""})
    assert answer.status_code == 401
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_pages_of_an_origin_that_was_named_may_ask(make_client: MakeClient) -> None:
    client = make_client(cors_origins=f"https://other.example, {ORIGIN}")
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    preflight = client.options("/v1/jobs", headers={**asked, "Authorization": ""})
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    answer = client.get("/v1/jobs", headers={"Origin": ORIGIN})
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert answer.headers["Vary"] == "Origin"
    assert client.get("/v1/jobs", headers={"Origin": ORIGIN, "Authorization": ""}).status_code == 401


@pytest.mark.parametrize(
    "origin", ["null", "https://app.example.evil", "http://app.example", "https://evil.app.example", "*"]
)
def test_no_other_origin_may(make_client: MakeClient, origin: str) -> None:
    client = make_client(cors_origins=ORIGIN)
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for answer in (client.options("/v1/jobs", headers=asked), client.get("/v1/jobs", headers={"Origin": origin})):
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "origins", ["*", "https://*", "app.example", "https://a/path", "https://a.example https://b.example"]
)
def test_origins_are_exact(origins: str) -> None:
    with pytest.raises(ValidationError):
        Settings(cors_origins=origins)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "DELETE", "PATCH", "PROPFIND"])
def test_methods_that_no_route_has(make_client: MakeClient, method: str) -> None:
    assert make_client().open("/v1/jobs", method=method).status_code == 405


@pytest.mark.parametrize("path", ["//v1/jobs", "/v1//jobs", "/docs/", "//evil.example/%2f..", "/%2fevil.example"])
def test_no_answer_leads_to_the_host_that_a_client_has_named(make_client: MakeClient, path: str) -> None:
    answer = make_client().get(path, headers={"Host": "evil.example"}, base_url="http://evil.example")
    assert answer.status_code == 404
    assert "Location" not in answer.headers
