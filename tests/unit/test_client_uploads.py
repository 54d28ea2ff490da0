"""Uploads: streamed, repeated when that is safe, and refused readably."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import threading
import tracemalloc
from pathlib import Path

import pytest
from scripted_api import JOB_ID, Answer, Received, ScriptedApi, job

from scorehouse_client import Client, ConnectionFailed, RegistrationFailed, ScorehouseApiError, SourceFailed

MIB = 1 << 20
UNAVAILABLE = {"title": "Unavailable", "status": 503, "detail": "the database cannot be reached"}


def big_file(folder: Path, size: int = 24 * MIB) -> Path:
    path = folder / "big.csv"
    path.write_bytes(os.urandom(MIB) * (size // MIB))
    return path


def sparse_file(folder: Path, size: int) -> Path:
    path = folder / "sparse.csv"
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_a_file_arrives_byte_for_byte_without_being_held_in_memory(
    api: ScriptedApi, client: Client, tmp_path: Path
) -> None:
    path = big_file(tmp_path)
    api.on("POST", "/v1/jobs", Answer(202, job("queued")))
    seen: list[tuple[int, int | None]] = []
    tracemalloc.start()
    accepted = client.submit_file(
        path, "flights", key_column="id", progress=lambda sent, total: seen.append((sent, total))
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    [request] = api.received
    assert request.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert request.query == {"model": "flights", "key_column": "id"}
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.headers["Content-Type"] == "text/csv"
    assert request.headers["Content-Length"] == str(24 * MIB)
    assert len(request.headers["Idempotency-Key"]) >= 16
    assert seen[-1] == (24 * MIB, 24 * MIB)
    assert seen == sorted(seen)
    # The server runs in this process and reads blocks of 1 MiB, too.
    assert peak < 12 * MIB
    assert (accepted.id, accepted.state, accepted.finished) == (JOB_ID, "queued", False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv.gz", ("text/csv", "gzip", None)),
        ("a.ndjson", ("application/x-ndjson", None, None)),
        ("a.JSONL.gz", ("application/x-ndjson", "gzip", None)),
        ("a.tsv", ("text/csv", None, "\t")),
        ("a", ("text/csv", None, None)),
    ],
)
def test_the_name_tells_the_format(
    api: ScriptedApi, client: Client, tmp_path: Path, name: str, expected: tuple[str | None, ...]
) -> None:
    (tmp_path / name).write_bytes(b"x")
    api.on("POST", "/v1/jobs", Answer(202, job("queued")))
    client.submit_file(tmp_path / name, "flights")
    [request] = api.received
    headers, query = request.headers, request.query
    assert (headers["Content-Type"], headers.get("Content-Encoding"), query.get("delimiter")) == expected


def test_a_file_that_is_no_csv_is_refused_before_anything_is_sent(
    api: ScriptedApi, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(SourceFailed, match="neither CSV nor NDJSON"):
        client.submit_file(tmp_path / "a.xlsx", "flights")
    with pytest.raises(SourceFailed, match=r"missing\.csv: No such file"):
        client.submit_file(tmp_path / "missing.csv", "flights")
    assert api.received == []


def test_a_broken_upload_is_sent_again_with_the_same_idempotency_key(
    api: ScriptedApi, client: Client, tmp_path: Path
) -> None:
    path = big_file(tmp_path, 8 * MIB)
    api.on("POST", "/v1/jobs", Answer(read=MIB, closing="silent"), Answer(202, job("queued")))
    client.submit_file(path, "flights")
    first, second = api.received
    assert second.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


@pytest.mark.parametrize(("status", "headers"), [(503, {}), (429, {"Retry-After": "1"}), (409, {"Retry-After": "0"})])
def test_an_answer_that_may_pass_is_waited_for(
    api: ScriptedApi, client: Client, status: int, headers: dict[str, str]
) -> None:
    api.on("POST", "/v1/jobs", Answer(status, UNAVAILABLE, headers), Answer(202, job("queued")))
    source = io.BytesIO(b"skipped\na,b\n1,2\n")
    source.seek(8)
    client.submit_file(source, "flights")
    assert [request.body for request in api.received] == [b"a,b\n1,2\n"] * 2


def test_a_longer_retry_after_than_one_may_wait_is_reported_at_once(api: ScriptedApi, client: Client) -> None:
    api.on("POST", "/v1/jobs", Answer(429, {"title": "Over quota", "status": 429}, {"Retry-After": "3600"}))
    with pytest.raises(ScorehouseApiError, match=r"Over quota \(429\)\nTry again in 1 h 0 min") as caught:
        client.submit("flights", {"a": 1})
    assert caught.value.retry_after == 3600
    assert len(api.received) == 1


def test_a_stream_that_cannot_be_rewound_is_sent_chunked_and_not_repeated(api: ScriptedApi, client: Client) -> None:
    api.on("POST", "/v1/jobs", Answer(503, UNAVAILABLE))
    with _pipe(b"a,b\n1,2\n") as source, pytest.raises(ScorehouseApiError, match="database cannot be reached"):
        client.submit_file(source, "flights")
    [request] = api.received
    assert request.body == b"a,b\n1,2\n"
    assert request.headers["Transfer-Encoding"] == "chunked"


def _pipe(content: bytes) -> io.BufferedReader:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(content)
    return os.fdopen(reading, "rb")


@pytest.mark.parametrize("closing", ["no", "reset"])
def test_a_refusal_in_mid_upload_is_shown(api: ScriptedApi, client: Client, tmp_path: Path, closing: str) -> None:
    problem = {
        "title": "Invalid input",
        "status": 422,
        "detail": "2 columns are wrong",
        "errors": [
            {"detail": "column 'agee' is not known, did you mean 'age'?", "pointer": "#/columns/agee"},
            {"detail": "column 'age' is missing", "pointer": "#/columns/age"},
        ],
    }
    api.on("POST", "/v1/jobs", Answer(422, problem, {"Connection": "close"}, read=MIB, closing=closing))
    seen: list[int] = []
    with pytest.raises(ScorehouseApiError) as caught:
        client.submit_file(sparse_file(tmp_path, 64 * MIB), "flights", progress=lambda sent, _: seen.append(sent))
    assert str(caught.value).splitlines() == [
        "Invalid input (422): 2 columns are wrong",
        "  - column 'agee' is not known, did you mean 'age'? (#/columns/agee)",
        "  - column 'age' is missing (#/columns/age)",
    ]
    assert len(api.received) == 1
    assert max(seen, default=0) < 32 * MIB


def test_an_upload_stops_when_the_api_answers_and_its_connection_is_not_used_again(tmp_path: Path) -> None:
    """Also when the API neither reads the rest nor closes, where waiting to send it would be for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def serve() -> None:
            first = _answered(listener, b"413 Too Large", b'{"title": "Too large", "status": 413}')
            second = _answered(listener, b"200 OK", b'{"models": []}')
            first.close()
            second.close()

        thread = threading.Thread(target=serve)
        thread.start()
        seen: list[int] = []
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", None, timeout=5, retry_for=0) as client:
            with pytest.raises(ScorehouseApiError, match=r"Too large \(413\)"):
                client.submit_file(
                    sparse_file(tmp_path, 256 * MIB), "flights", progress=lambda sent, _: seen.append(sent)
                )
            assert client.models() == []
        thread.join()
    assert max(seen, default=0) < 64 * MIB


def _answered(listener: socket.socket, status: bytes, content: bytes) -> socket.socket:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(content), content))
    return connection


def test_a_file_that_grows_in_mid_upload_is_not_cut_in_mid_row(
    api: ScriptedApi, client: Client, tmp_path: Path
) -> None:
    path = big_file(tmp_path, 3 * MIB)

    def append(sent: int, total: int | None) -> None:
        if sent == MIB:
            with path.open("ab") as file:
                file.write(b"more")

    api.on("POST", "/v1/jobs", Answer(202, job("queued")))
    with pytest.raises(SourceFailed, match="changed while it was being uploaded"):
        client.submit_file(path, "flights", progress=append)


def test_a_server_that_is_not_there_is_reported_soon_and_with_its_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Client(url, None) as client, pytest.raises(ConnectionFailed) as caught:
        client.job("x")
    assert caught.value.url == url
    assert f"The connection to {url} failed" in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert "scorehouse up" in str(caught.value)


def test_json_submit_sends_what_was_given(api: ScriptedApi, client: Client) -> None:
    single = job(total=1, kind="single", result={"prediction": 1, "probability": [0.2, 0.8]})
    api.on("POST", "/v1/jobs", single)
    done = client.submit("flights", {"a": 1.5}, key="k1", metadata={"run": "7"}, priority="high", wait=5)
    [request] = api.received
    assert request.json() == {
        "model": "flights",
        "inputs": {"a": 1.5},
        "key": "k1",
        "metadata": {"run": "7"},
        "priority": "high",
    }
    assert request.headers["Prefer"] == "wait=5"
    assert done.result == {"prediction": 1, "probability": [0.2, 0.8]}
    with pytest.raises(ValueError, match="JSON"):
        client.submit("flights", {"a": float("nan")})


def test_registering_sends_the_fields_before_the_files_and_waits(
    api: ScriptedApi, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "m.skops").write_bytes(b"artefact")
    (tmp_path / "ref.csv").write_bytes(b"a,b\n1,2\n")
    version = {"model": "flights", "version": "1.0.0", "state": "registering", "digest": "sha256:ab"}
    api.on("POST", "/v1/models/flights/versions", Answer(202, version))
    path = "/v1/models/flights/versions/1.0.0"
    api.on("GET", path, version, {**version, "state": "registered", "runtime": "sklearn"})
    done = client.register_version(
        "flights", "1.0.0", tmp_path / "m.skops", tmp_path / "ref.csv", target="late", trust=True
    )
    assert (done.state, done.runtime) == ("registered", "sklearn")
    body = api.received[0].body
    parts = [
        b'name="version"',
        b'name="target"',
        b'name="runtime"',
        b'name="trust"',
        b'name="reference"',
        b'name="artefact"',
    ]
    positions = [body.index(part) for part in parts]
    assert positions == sorted(positions)
    assert b'filename="m.skops"' in body
    assert b"\r\n\r\nartefact\r\n--" in body
    assert api.received[0].headers["Content-Length"] == str(len(body))

    api.on("GET", path, {**version, "state": "failed", "error": "the artefact cannot be loaded"})
    with pytest.raises(RegistrationFailed, match="the artefact cannot be loaded"):
        client.register_version("flights", "1.0.0", tmp_path / "m.skops", tmp_path / "ref.csv")


def test_what_is_no_scorehouse_is_said_to_be_none(api: ScriptedApi, client: Client) -> None:
    def page(_: Received) -> Answer:
        return Answer(200, b"<html>hello</html>", {"Content-Type": "text/html"})

    api.on("GET", "/v1/models", page)
    with pytest.raises(ConnectionFailed, match="is this the URL of a Scorehouse API"):
        client.models()


@pytest.mark.parametrize("url", ["http://[::1", "127.0.0.1:8000", "ftp://there", ""])
def test_what_is_no_url_is_told(url: str) -> None:
    with pytest.raises(ConnectionFailed, match="no URL of the form"):
        Client(url, "token")
