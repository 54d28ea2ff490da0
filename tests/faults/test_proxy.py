"""The proxy of the fault tests does to a connection what it says."""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy import HOST, Proxy

MUCH = 4 * 1024 * 1024
LINUX = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="packets are dropped by a filter of Linux")


class Echo:
    """A server on a unix socket that says what it hears."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which close() would not
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while block := connection.recv(65_536):
                connection.sendall(block)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    echo = Echo(tmp_path / "echo")
    with Proxy(lambda: echo.path) as proxy:
        yield proxy
    echo.close()


def test_it_passes_everything_on(proxy: Proxy) -> None:
    with _connected(proxy) as client:
        _send_and_hear(client, bytes(range(256)) * (MUCH // 256))
    _until(lambda: proxy.links() == 0)


def test_a_client_hears_what_the_server_said_before_it_closed(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "curt"))
    listener.listen()
    with listener, Proxy(lambda: tmp_path / "curt") as proxy, _connected(proxy) as client:
        client.sendall(b"hello")
        server, _ = listener.accept()
        with server:
            assert server.recv(100) == b"hello"
            server.sendall(b"x" * MUCH)
        assert _hear(client, MUCH) == b"x" * MUCH
        assert client.recv(100) == b""


def test_latency_is_of_the_round_trip_and_takes_no_bandwidth(proxy: Proxy) -> None:
    proxy.latency = 0.2
    with _connected(proxy) as client:
        began = time.monotonic()
        _send_and_hear(client, b"once")
        assert 0.2 <= time.monotonic() - began < 1.0
        began = time.monotonic()
        _send_and_hear(client, b"x" * MUCH)  # 64 blocks: one after the other they would take 12 s
        assert 0.2 <= time.monotonic() - began < 4.0


def test_silence_confirms_and_does_not_answer(proxy: Proxy) -> None:
    with _connected(proxy) as old:
        _send_and_hear(old, b"before")
        proxy.silence()
        with _connected(proxy) as new:
            for client in (old, new):
                client.sendall(b"hello?")
                _assert_silent(client)
                if hasattr(socket, "TCP_INFO"):
                    assert _unconfirmed(client) == 0
        proxy.heal()
        with _connected(proxy) as after:
            _send_and_hear(after, b"after")
        _assert_silent(old)


def test_what_was_silent_may_resume(proxy: Proxy) -> None:
    with _connected(proxy) as client:
        _send_and_hear(client, b"before")
        proxy.silence()
        client.sendall(b"held")
        _assert_silent(client)
        proxy.heal(resume=True)
        assert _hear(client, 4) == b"held"


def test_silence_may_concern_some(proxy: Proxy) -> None:
    with _connected(proxy) as quiet, _connected(proxy) as loud:
        _send_and_hear(quiet, b"I am quiet")
        _send_and_hear(loud, b"I am loud")
        proxy.silence(b"quiet")
        assert (proxy.links(), proxy.links(b"quiet"), proxy.links(b"loud")) == (1, 0, 1)
        _send_and_hear(loud, b"still there")
        quiet.sendall(b"hello?")
        _assert_silent(quiet)
        with _connected(proxy) as later:
            later.sendall(b"I am quiet too")
            _assert_silent(later)


@LINUX
def test_a_black_hole_confirms_nothing(proxy: Proxy) -> None:
    with _connected(proxy) as client:
        _send_and_hear(client, b"before")
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
        proxy.black_hole()
        client.sendall(b"hello?")
        with pytest.raises(TimeoutError) as told:
            client.recv(100)
        assert told.value.errno == errno.ETIMEDOUT, "TCP itself noticed, before the timeout of the test"
        with pytest.raises(TimeoutError):
            socket.create_connection((HOST, proxy.port), timeout=0.3).close()
        proxy.heal()
        with _connected(proxy) as after:
            _send_and_hear(after, b"after")


@LINUX
def test_a_black_hole_that_resumes_has_lost_nothing(proxy: Proxy) -> None:
    with _connected(proxy) as client:
        _send_and_hear(client, b"before")
        proxy.black_hole(b"before")
        client.sendall(b"sent again by TCP")
        _assert_silent(client)
        assert _unconfirmed(client) == 1
        proxy.heal(resume=True)
        assert _hear(client, 17) == b"sent again by TCP"


def test_a_cut_is_a_reset_and_spares_those_that_it_does_not_concern(proxy: Proxy) -> None:
    with _connected(proxy) as one, _connected(proxy) as other:
        _send_and_hear(one, b"one")
        _send_and_hear(other, b"other")
        assert proxy.cut(b"one") == 1
        with pytest.raises(ConnectionResetError):
            one.recv(100)
        _send_and_hear(other, b"still there")


def test_it_refuses_and_is_back_on_its_port(proxy: Proxy) -> None:
    with _connected(proxy) as client:
        _send_and_hear(client, b"before")
        port = proxy.port
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
        with pytest.raises(ConnectionRefusedError):
            _connected(proxy)
        proxy.heal()
        assert proxy.port == port
        with _connected(proxy) as after:
            _send_and_hear(after, b"after")


def test_a_server_that_is_not_there_resets(tmp_path: Path) -> None:
    with Proxy(lambda: tmp_path / "nothing") as proxy, pytest.raises(ConnectionResetError), _connected(proxy) as client:
        client.recv(100)  # unless it was reset before it knew that it was connected


def _connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=10)


def _send_and_hear(client: socket.socket, data: bytes) -> None:
    sending = threading.Thread(target=client.sendall, args=(data,))
    sending.start()
    assert _hear(client, len(data)) == data
    sending.join()


def _hear(client: socket.socket, number: int) -> bytes:
    heard = b""
    while len(heard) < number:
        block = client.recv(65_536)
        assert block, "the connection ended"
        heard += block
    return heard


def _assert_silent(client: socket.socket) -> None:
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(100)
    client.settimeout(10)


def _unconfirmed(client: socket.socket) -> int:
    """Segments that were sent and that the peer's kernel has not confirmed: tcpi_unacked of struct tcp_info."""
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("I", info, 24)[0])


def _until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)
