"""The API's gunicorn around another application: one process, two threads, clients that may not be slow for long."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.background import free_port

HEAD_SECONDS = 2
STALL_SECONDS = 2
THREADS = 2
_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Server:
    """Bytes in, bytes out."""

    port: int
    pid: int

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(_WAIT_SECONDS)
        client.connect(("127.0.0.1", self.port))
        return client

    def answers(self, sent: bytes, *, close: bool = True) -> list[Answer]:
        """Everything that is answered to these bytes until the connection ends."""
        with self.connect() as client:
            client.sendall(sent)
            if close:
                client.shutdown(socket.SHUT_WR)
            return parsed(read_all(client))

    def get(self) -> Answer:
        """A request that any client might make."""
        (answer,) = self.answers(b"GET /fine HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n", close=False)
        return answer


@contextmanager
def serving(folder: Path, **settings: object) -> Iterator[Server]:
    """A server with `echoing.application`."""
    port = free_port(0)
    variables = {
        "DATA_DIR": folder,
        "API_PORT": port,
        "API_WORKERS": 1,
        "API_THREADS": THREADS,
        "HEAD_SECONDS": HEAD_SECONDS,
        "STALL_SECONDS": STALL_SECONDS,
        **settings,
    }
    environment = {**os.environ, **{f"SCOREHOUSE_{name}": str(value) for name, value in variables.items()}}
    command = [sys.executable, "-m", "gunicorn", "--config", "python:api.gunicorn_config"]
    command += ["--pythonpath", str(Path(__file__).parent), "echoing:application"]
    with (folder / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait_for(port, process)
        yield Server(port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_WAIT_SECONDS)


def read_all(client: socket.socket) -> bytes:
    """Until the server closes, even if it resets the connection."""
    received = bytearray()
    try:
        while block := client.recv(65_536):
            received += block
    except ConnectionResetError:
        pass
    return bytes(received)


def parsed(stream: bytes) -> list[Answer]:
    """The answers of a connection; interim ones (1xx) are left out."""
    found = []
    while stream:
        head, _, stream = stream.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first)
        assert match is not None, first
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if int(match[1]) >= 200:
            found.append(Answer(int(match[1]), headers, stream[:length]))
        stream = stream[length:]
    return found


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "gunicorn ended"
            assert time.monotonic() < deadline, "gunicorn does not listen"
            time.sleep(0.05)
        else:
            return
