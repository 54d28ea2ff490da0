"""What the API's gunicorn makes of clients that are slow, rude, or gone: whatever they do, others are answered."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest
from serving import THREADS, Server, parsed, read_all, serving

MANY = THREADS * 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serving")) as server:
        yield server


def test_a_head_in_pieces_is_one_request(server: Server) -> None:
    with server.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST /a HTTP/1.1\r\nHost: s\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc":
            client.sendall(bytes([byte]))
        (answer,) = parsed(read_all(client))
    assert json.loads(answer.body) == {"method": "POST", "path": "/a", "body": 3}


def test_a_connection_is_kept_for_many_requests_also_pipelined_ones(server: Server) -> None:
    request = b"POST /a HTTP/1.1\r\nHost: s\r\nContent-Length: 3\r\n\r\nabc"
    last = request.replace(b"Host: s", b"Host: s\r\nConnection: close")
    answers = server.answers(request * 3 + last, close=False)
    assert [json.loads(answer.body)["body"] for answer in answers] == [3, 3, 3, 3]
    assert [answer.headers["connection"] for answer in answers] == ["keep-alive"] * 3 + ["close"]


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /slow HTTP/1.1\r\nHost",
        b"POST /slow HTTP/1.1\r\nHost: s\r\nContent-Length: 100\r\n\r\nabc",
        b"GET /first HTTP/1.1\r\nHost: s\r\n\r\nGET /second HTTP/1.1\r\n",
        b"POST /refused HTTP/1.1\r\nHost: s\r\nContent-Length: 1000000\r\n\r\nabc",
    ],
    ids=["head", "short body", "second head", "body of a refused request"],
)
def test_what_has_only_begun_keeps_no_thread_and_is_ended(server: Server, begun: bytes) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(MANY)]
        for client in clients:
            client.sendall(begun)
        assert server.get().status == 200
        last = [parsed(read_all(client))[-1] for client in clients]
    assert {answer.status for answer in last} == ({401} if b"refused" in begun else {408})
    assert {answer.headers["connection"] for answer in last} == {"close"}


def test_a_body_that_does_not_come_ends_with_the_patience(server: Server) -> None:
    """An application that reads it is told; here it makes nothing of that, so there is no answer."""
    begun = b"POST /long HTTP/1.1\r\nHost: s\r\nContent-Length: 1000000\r\n\r\nabc"
    assert server.answers(begun, close=False) == []
    assert server.get().status == 200


def test_clients_that_do_not_read_are_dropped(server: Server) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect(receive_buffer=4096)) for _ in range(MANY)]
        for client in clients:
            client.sendall(b"GET /large HTTP/1.1\r\nHost: s\r\n\r\n")
        assert server.get().status == 200


def test_silent_connections_make_room(tmp_path_factory: pytest.TempPathFactory, server: Server) -> None:
    """More than a process takes: those that keep it waiting for longest go first."""
    with ExitStack() as stack:
        for _ in range(900):
            stack.enter_context(server.connect())
        assert server.get().status == 200


def test_a_refused_client_sees_why_although_it_still_sends(server: Server) -> None:
    head = b"POST /refused HTTP/1.1\r\nHost: s\r\nContent-Length: 8000000\r\n\r\n"
    (answer,) = server.answers(head + b"x" * 8_000_000, close=False)
    assert (answer.status, answer.headers["connection"]) == (401, "close")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: s\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: s\r\nX: " + b"a" * 9_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: s\r\n" + b"X: 1\r\n" * 65 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: s\r\n" + (b"X: " + b"a" * 8_000 + b"\r\n") * 9 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000, 431),
    ],
    ids=["line", "header", "headers", "head", "endless header"],
)
def test_a_head_is_bounded(server: Server, head: bytes, status: int) -> None:
    (answer,) = server.answers(head, close=False)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body)["status"] == status


def test_a_server_that_stops_does_not_wait_for_slow_clients(tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        serving(tmp_path_factory.mktemp("stopping"), HEAD_SECONDS=600) as server,
        server.connect() as silent,
        server.connect() as slow,
    ):
        slow.sendall(b"GET / HTTP")
        assert server.get().status == 200
        process = psutil.Process(server.pid)
        process.send_signal(signal.SIGTERM)
        assert read_all(silent) == b""
        assert [answer.status for answer in parsed(read_all(slow))] in ([], [408])
        process.wait(timeout=20)
