"""A real HTTP server in a thread that answers what a test tells it to."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Received:
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    size: int = 0
    sha256: str = ""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What to send; `read` says how many bytes of the body are taken first (None: all), and `closing` how it ends."""

    status: int = 200
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    read: int | None = None
    closing: str = "no"  # no | reset | silent (no answer at all) | truncated (half of the content)


Script = Answer | Callable[[Received], Answer]
KEPT_BYTES = 1 << 20


class ScriptedApi:
    def __init__(self) -> None:
        self.received: list[Received] = []
        self._scripts: dict[tuple[str, str], list[Script]] = {}
        self._lock = threading.Lock()
        api = self

        class Handler(_Handler):
            scripted = api

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def on(self, method: str, path: str, *scripts: Script | Any) -> None:
        """Answer requests in turn; the last one again and again. Anything that is no Answer is the JSON of one."""
        self._scripts[method, path] = [
            script if isinstance(script, Answer) or callable(script) else Answer(content=script) for script in scripts
        ]

    def next(self, received: Received) -> Answer:
        with self._lock:
            self.received.append(received)
            scripts = self._scripts.get((received.method, received.path))
            if not scripts:
                detail = f"{received.method} {received.path} is not scripted"
                return Answer(404, {"title": "Not Found", "status": 404, "detail": detail})
            script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        return script if isinstance(script, Answer) else script(received)

    def paths(self, method: str) -> list[str]:
        return [received.path for received in self.received if received.method == method]

    @contextmanager
    def running(self) -> Iterator[ScriptedApi]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Server(ThreadingTCPServer):  # an HTTPServer would look its own name up, which takes time
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet, or the kernel holds the second back for 40 ms.
    wbufsize = 1 << 16
    scripted: ScriptedApi

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        received = Received(self.command, parts.path, dict(parse_qsl(parts.query)), dict(self.headers))
        answer = self.scripted.next(received)
        digest = hashlib.sha256()
        for block in self._body(answer.read):
            received.size += len(block)
            received.body += block if received.size <= KEPT_BYTES else b""
            digest.update(block)
        received.sha256 = digest.hexdigest()
        if answer.closing != "silent":
            self._answer(answer)
        if answer.closing == "reset":
            self.wfile.flush()
            # What the kernel has not read makes this a reset instead of an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = self.close_connection or answer.closing != "no"

    def _body(self, limit: int | None) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        left = left if limit is None else min(left, limit)
        while left:
            block = self.rfile.read(min(left, 1 << 20))
            if not block:
                return
            left -= len(block)
            yield block

    def _answer(self, answer: Answer) -> None:
        content = answer.content if isinstance(answer.content, bytes) else json.dumps(answer.content).encode()
        kind = "application/problem+json" if answer.status >= 400 else "application/json"
        self.send_response(answer.status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if answer.closing == "truncated" else content)


def job(state: str = "succeeded", *, total: int = 3, errored: int = 0, **more: Any) -> dict[str, Any]:
    """The JSON of a job as the API sends it."""
    pending = 0 if state not in ("queued", "running") else total
    rows = {
        "total": total,
        "succeeded": total - errored - pending,
        "errored": errored,
        "canceled": 0,
        "pending": pending,
    }
    return {
        "id": "019a0000-0000-7000-8000-000000000001",
        "kind": "batch",
        "model": "flights",
        "model_version": "1.2.0",
        "digest": "sha256:ab",
        "lane": "bulk",
        "state": state,
        "rows": rows,
        "progress": 0.0 if pending else 1.0,
        "rows_per_second": 1000.0,
        "eta_seconds": 0,
        "queue_position": None,
        "created_at": "2025-01-31T10:00:00Z",
        "started_at": "2025-01-31T10:00:01Z",
        "finished_at": None if pending else "2025-01-31T10:00:03Z",
        "expires_at": None,
        "metadata": {},
        "error": None,
        **more,
    }


JOB_ID = job()["id"]
JOB_PATH = f"/v1/jobs/{JOB_ID}"
