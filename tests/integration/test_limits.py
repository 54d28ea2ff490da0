"""Each line of `docs/reference/limits.md`: what crosses the bound gets the status that stands there, and leaves nothing."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI
from serving import Server, serving
from sqlalchemy import Engine, text

from api.app import MAX_DOCUMENT_BYTES, create_app
from api.places import Places
from api.tokens import create_token
from errors import Busy, Unavailable
from records.json_text import MAX_DEPTH
from settings import Settings, get_settings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "limits.md"
LINES = re.findall(
    r"^\| ([^|`]+) \| [^|]+ \| (?:`SCOREHOUSE_([A-Z_]+)`)? ?\| (\d{3}) \| [^|]+ \|$", PAGE.read_text(), re.M
)
STATUS = {name: int(status) for name, _, status in LINES}
BOUNDS = {
    "max_upload_bytes": 200_000,
    "max_json_bytes": 100_000,
    "max_json_records": 10,
    "max_record_bytes": 10_000,
    "max_columns": 20,
    "max_inflation": 5,
    "max_artefact_bytes": 1_000,
    "max_reference_bytes": 1_000,
}
GET = b"GET / HTTP/1.1\r\nHost: s\r\n"
POST = b"POST / HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\nabc"
HEADS = {
    "request line": b"GET /%s HTTP/1.1\r\nHost: s\r\n\r\n" % (b"a" * 8_190),
    "one header": GET + b"X: %s\r\n\r\n" % (b"a" * 8_190),
    "number of headers": GET + b"X: 1\r\n" * 64 + b"\r\n",
    "head of a request": GET + (b"X: %s\r\n" % (b"a" * 8_000)) * 9 + b"\r\n",
    "time for the head": GET,
    "time for a body of at most 65,536 bytes": POST % 65_536,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        tmp_path_factory.mktemp("limits"), HEAD_SECONDS=1, STALL_SECONDS=1, MIN_BYTES_PER_SECOND=65_536
    ) as server:
        yield server


@pytest.mark.parametrize("name", HEADS)
def test_bounds_of_a_head(server: Server, name: str) -> None:
    (answer,) = server.answers(HEADS[name], close=False)
    assert answer.status == STATUS[name]


@pytest.fixture
def app(
    servers: Any, database_url: str, version_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OpenAPI]:
    monkeypatch.setenv("SCOREHOUSE_BROKER_URL", servers.broker_url)  # of permits
    get_settings.cache_clear()
    key_file = tmp_path / "jwt.key"
    key_file.write_text("k" * 64)
    settings = Settings(
        data_dir=tmp_path, database_url=database_url, broker_url=servers.broker_url, jwt_key_file=key_file
    )
    app = create_app(settings.model_copy(update=BOUNDS))
    yield app
    app.extensions["scorehouse"].close()
    get_settings.cache_clear()


@pytest.fixture
def http(app: OpenAPI) -> FlaskClient:
    client = app.test_client()
    settings = app.extensions["scorehouse"].settings
    token = create_token(settings, subject="tests", tenant="default", scopes=["admin"], ttl=timedelta(minutes=5))
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return client


def upload(body: bytes, kind: str = "text/csv", **headers: str) -> Callable[[FlaskClient], Any]:
    path = "/v1/jobs?model=m&version=1.0.0"
    return lambda http: http.post(path, data=body, headers={"Content-Type": kind, **headers})


def submit(inputs: Any, **more: Any) -> Callable[[FlaskClient], Any]:
    return upload(json.dumps({"model": "m", "version": "1.0.0", "inputs": inputs, **more}).encode(), "application/json")


def form(content: bytes) -> Callable[[FlaskClient], Any]:
    return upload(content + b"--b--\r\n", "multipart/form-data; boundary=b")


def part(name: str, value: bytes, header: bytes = b"") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%s"\r\n%s\r\n%s\r\n' % (name.encode(), header, value)


def register(**sizes: int) -> Callable[[FlaskClient], Any]:
    fields = part("version", b"2.0.0") + part("key", b"x") + part("trust", b"true")
    files = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
        % (name.encode(), file, b"x" * sizes.get(name, 10))
        for name, file in (("reference", b"r.csv"), ("artefact", b"a.skops"))
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return lambda http: http.post("/v1/models/m/versions", data=fields + files + b"--b--\r\n", headers=headers)


def document(size: int) -> Callable[[FlaskClient], Any]:
    body = json.dumps({"version": "1.0.0", "why": "x" * size}).encode()
    return lambda http: http.post("/v1/models/m/deployments", data=body, headers={"Content-Type": "application/json"})


def nested(depth: int) -> bytes:
    return b'{"model": "m", "version": "1.0.0", "inputs": {"x": %s1%s}}' % (b"[" * (depth - 2), b"]" * (depth - 2))


WIDE = ",".join(["x", *(f"c{number}" for number in range(20))]).encode() + b"\n"
BODIES = {
    "JSON body that is no record": document(MAX_DOCUMENT_BYTES),
    "JSON body of records or labels": submit({"x": "a" * 100_000}),
    "records in a JSON body": submit([{"x": 1}] * 11),
    "depth of JSON": upload(nested(MAX_DEPTH + 1), "application/json"),
    "members of a JSON object with one name": upload(
        b'{"model": "m", "version": "1.0.0", "inputs": {"x": 1, "x": 2}}', "application/json"
    ),
    "record in a JSON body": submit({"x": "a" * 10_000}),
    "upload": upload(b"x\n" + b"1\n" * 100_000),
    "decompressed bytes per compressed byte": upload(gzip.compress(b"x\n" + b"1\n" * 9_000_000)),
    "record of a file, also one whose quote does not end": upload(b'x\n"' + b"1\n" * 10_000),
    "columns of a file": upload(WIDE + b"1,\n"),
    "field of a form": form(part("model", b"x" * 65_537)),
    "parts of a form": form(b"".join(part(f"f{number}", b"1") for number in range(51))),
    "header of a part of a form": form(part("model", b"m", b"X: %s\r\n" % (b"x" * 1_100_000))),
    "model artefact": register(artefact=1_001),
    "reference of a model": register(reference=1_001),
    "metadata of a job": submit({"x": 1}, metadata={str(number): "" for number in range(17)}),
    "Idempotency-Key": upload(b"x\n1\n", **{"Idempotency-Key": "k" * 256}),
}
# What just does not cross a bound.
WITHIN = {
    "records in a JSON body": submit([{"x": 1}] * 10),
    "depth of JSON": upload(nested(MAX_DEPTH), "application/json"),
    "record in a JSON body": submit({"x": "a" * 9_900}),
    "upload": upload(b"x\n" + b"1\n" * 99_999),
    "columns of a file": upload(WIDE.replace(b",c19", b"") + b"1\n"),
    "metadata of a job": submit({"x": 1}, metadata={str(number): "" for number in range(16)}),
    "Idempotency-Key": upload(b"x\n1\n", **{"Idempotency-Key": "k" * 255}),
}


@pytest.mark.parametrize("name", BODIES)
def test_bounds_of_a_body(http: FlaskClient, engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "decompressed bytes per compressed byte":  # the bytes themselves are not too many here
        monkeypatch.setitem(http.application.extensions["scorehouse"].settings.__dict__, "max_upload_bytes", 10**9)
    answer = BODIES[name](http)
    assert answer.status_code == STATUS[name], answer.data
    assert answer.mimetype == "application/problem+json"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM job")).scalar_one() == 0
        assert connection.execute(text("SELECT count(*) FROM model_version")).scalar_one() == 1


@pytest.mark.parametrize("name", WITHIN)
def test_what_does_not_cross_a_bound_is_taken(http: FlaskClient, name: str) -> None:
    answer = WITHIN[name](http)
    assert answer.status_code == 202, answer.data


def test_places_of_a_tenant_and_of_a_process() -> None:
    places = Places.of(64)
    with ExitStack() as taken:
        first = [places.take("a") for _ in range(6)]
        for place in first:
            taken.callback(place.give_back)
        with pytest.raises(Busy, match="as many as one tenant may have"):
            places.take("a")
        others = [places.take("b") for _ in range(2)]
        with pytest.raises(Unavailable, match="as many uploads and downloads as possible"):
            places.take("c")
        first[0].give_back()
        first[0].give_back()
        others.append(places.take("a"))
        with pytest.raises(Busy):
            places.take("a")
        with pytest.raises(Unavailable):
            places.take("c")


def test_each_line_of_the_page_is_tested_and_each_bound_among_the_settings_is_on_it() -> None:
    elsewhere = {  # test_places_…, and tests/acceptance/test_slow_clients.py
        "long uploads and downloads of a tenant at once, per API process": 429,
        "long uploads and downloads at once, per API process": 503,
        "pace of a longer body": 408,
    }
    assert {*HEADS, *BODIES, *elsewhere} == set(STATUS)
    assert elsewhere.items() <= STATUS.items()
    named = {setting.lower() for _, setting, _ in LINES if setting}
    assert {*BOUNDS, "head_seconds", "stall_seconds", "min_bytes_per_second"} <= named <= set(Settings.model_fields)
