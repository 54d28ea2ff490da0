"""How gunicorn holds the connections of the API: a thread is given to a request that is there, not to one on its way.

gunicorn's threaded worker gives a connection to a thread with its first byte, and 64 clients that send a byte per second
have all of ours. Here the poller, one thread for all connections, takes in the head of a request, and its body if that is
short. Only then comes a thread, and the socket (`api/pace.py`) bounds how long that waits for a slow client.

After an answer that ends the connection the poller also reads on for a moment: to close on what a client still sends
would reset the connection, and the client might not see the answer.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn.http.body import LengthReader  # type: ignore[import-untyped]  # ships no type information
from gunicorn.http.errors import (  # type: ignore[import-untyped]  # as above
    ExpectationFailed,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]  # as above

import logs
from api.arrival import MAX_HEAD_BYTES, Arrival
from api.pace import Pace, PacedSocket
from settings import get_settings

_log = logs.get(__name__)

_READ_BYTES = 64 * 1024
_LOOK_SECONDS = 0.5
# How long, and how much, is read of what a client still sends after its answer.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 64 * 1024 * 1024
_OUT_OF_FILES = {errno.EMFILE, errno.ENFILE}
_GONE_ALREADY = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED}

# As much of a body as gunicorn reads off by itself before the next request.
_READ_OFF_BYTES = 32 * 1024

_STATUS = {
    LimitRequestLine: (HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long; shorten the query string"),
    LimitRequestHeaders: (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request has too many or too long headers"),
    ExpectationFailed: (HTTPStatus.EXPECTATION_FAILED, "the only expectation that is understood is 100-continue"),
}
_OURS = (InvalidResponseHeader, InvalidResponseHeaderName)
_MALFORMED = (HTTPStatus.BAD_REQUEST, "the request is not well-formed HTTP/1.1; let an HTTP library build it")


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """One client; `arrival` is what has come of its next request, `unread` how much was read after its last answer."""

    def __init__(self, cfg: Any, client: socket.socket, address: Any, server: Any, pace: Pace) -> None:
        super().__init__(cfg, PacedSocket.of(client, pace), address, server)
        self.data_ready = True
        self.arrival = Arrival()
        self.lingering = False
        self.unread = 0


class PatientWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's threaded worker without threads that wait for heads, for short bodies, or for clients to close."""

    wsgi: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = get_settings()
        writes = threading.BoundedSemaphore(max(self.cfg.threads // 8, 1))
        self._pace = Pace(settings.stall_seconds, settings.min_bytes_per_second, writes)
        self._head_seconds = settings.head_seconds
        self._waiting: dict[Connection, None] = {}  # in the order in which they began to
        self._looked = 0.0

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi = _closing_on_unread_bodies(self.wsgi)

    def accept(self, listener: socket.socket) -> None:
        """Take a connection; when there are too many, the one that has made us wait for longest goes."""
        try:
            client, address = listener.accept()
        except OSError as exc:
            if exc.errno in _OUT_OF_FILES:
                self._drop_oldest()
            elif exc.errno not in _GONE_ALREADY:
                raise
            return
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self._drop_oldest()
        self.enqueue_req(Connection(self.cfg, client, address, listener.getsockname(), self._pace))

    def on_client_socket_readable(self, connection: Connection, client: PacedSocket) -> None:
        """The next request begins on a connection that was kept."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(connection)
        self.enqueue_req(connection)

    def enqueue_req(self, connection: Connection) -> None:
        """Take in a request, and give it to a thread as soon as it is there."""
        connection.arrival = Arrival()
        connection.timeout = time.monotonic() + self._head_seconds
        connection.sock.setblocking(False)
        if connection.parser is not None:  # what came behind the last request
            connection.arrival.add(connection.parser.unreader.take_buffered())
        self._take_in(connection)

    def handle(self, connection: Connection) -> Any:
        """In a thread."""
        connection.init()
        connection.parser.unreader.unread(bytes(connection.arrival.data))
        return super().handle(connection)

    def handle_request(self, req: Any, connection: Connection) -> Any:
        connection.sock.begin()
        return super().handle_request(req, connection)

    def handle_error(self, req: Any, client: PacedSocket, addr: Any, exc: BaseException) -> None:
        """Answer what cannot be parsed, as a problem like all others; the log has no word of the request."""
        if isinstance(exc, ParseException) and not isinstance(exc, _OURS):
            status, detail = next((_STATUS[kind] for kind in _STATUS if isinstance(exc, kind)), _MALFORMED)
            _log.info("malformed_request", reason=type(exc).__name__, status=int(status))
        else:
            status, detail = HTTPStatus.INTERNAL_SERVER_ERROR, "this is a defect of the server; its log has the details"
            _log.error("bug", exc_info=exc)
        with suppress(OSError):
            client.begin()
            client.sendall(_problem(status, detail))

    def finish_request(self, connection: Connection, future: Future[Any]) -> None:
        """In the poller, after the answer."""
        if not future.cancelled() and future.exception() is None and future.result():
            super().finish_request(connection, future)
        else:
            self._linger(connection)

    def murder_pending(self) -> None:
        """Let go of those that keep us waiting."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        for connection in [each for each in self._waiting if each.timeout <= now]:
            if connection.arrival.data and not connection.lingering:
                self._refuse(connection, HTTPStatus.REQUEST_TIMEOUT, "the request came too slowly; send it again")
            else:
                self._drop(connection)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for connection in self._waiting:
            connection.timeout = min(connection.timeout, deadline)

    def _take_in(self, connection: Connection, _socket: Any = None) -> None:
        """What the socket has, once: others are waiting too."""
        arrival = connection.arrival
        had_head = arrival.has_head
        if not arrival.is_whole:
            data = self._read(connection, _READ_BYTES)
            if data is None:
                return
            arrival.add(data)
        if arrival.is_whole:
            self._leave(connection)
            super().enqueue_req(connection)
        elif arrival.is_too_long:
            self._refuse(
                connection,
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the request's head has more than {MAX_HEAD_BYTES:,} bytes; leave out headers, or shorten them",
            )
        else:
            if arrival.has_head and not had_head:
                patience = self._pace.stall_seconds + self._pace.seconds_for(arrival.body_bytes)
                connection.timeout = time.monotonic() + patience
            self._wait(connection, self._take_in)

    def _linger(self, connection: Connection) -> None:
        """Say that no more is sent, and read on until the client has closed too, within bounds."""
        try:
            connection.sock.shutdown(socket.SHUT_WR)
            connection.sock.setblocking(False)
        except OSError:
            self._drop(connection)
            return
        connection.lingering = True
        connection.timeout = time.monotonic() + _LINGER_SECONDS
        self._wait(connection, self._read_off)

    def _read_off(self, connection: Connection, _socket: Any) -> None:
        data = self._read(connection, _READ_BYTES)
        if data is not None:
            connection.unread += len(data)
            if connection.unread > _LINGER_BYTES:
                self._drop(connection)

    def _read(self, connection: Connection, size: int) -> bytes | None:
        """What is there, perhaps nothing yet; None when there will be no more, and the connection was let go."""
        try:
            data: bytes = connection.sock.recv_now(size)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
        return data or None

    def _refuse(self, connection: Connection, status: HTTPStatus, detail: str) -> None:
        self._leave(connection)
        with suppress(OSError):  # a client that does not even take these few bytes gets no answer
            connection.sock.send(_problem(status, detail))
        self._linger(connection)

    def _wait(self, connection: Connection, readable: Callable[[Connection, Any], None]) -> None:
        if connection not in self._waiting:
            self._waiting[connection] = None
            self.poller.register(connection.sock, selectors.EVENT_READ, partial(readable, connection))

    def _leave(self, connection: Connection) -> None:
        if connection in self._waiting:
            del self._waiting[connection]
            self.poller.unregister(connection.sock)

    def _drop(self, connection: Connection) -> None:
        self._leave(connection)
        self.nr_conns -= 1
        connection.close()

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._waiting), None)
        if oldest is not None:
            self._drop(oldest)


def _closing_on_unread_bodies(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The application, whose answers say `Connection: close` where the client still sends a body that nobody reads.

    gunicorn would read it off in the thread.
    """

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        response = start_response.__self__  # gunicorn's, which writes the header
        response.version = "scorehouse"

        def start(*arguments: Any) -> Any:
            if not _body_is_here(response.req):
                response.force_close()
            return start_response(*arguments)

        return application(environ, start)

    return answer


def _body_is_here(request: Any) -> bool:
    """Whether the rest of the body, if there is any, can be read without waiting."""
    if request.body.failed:
        return False
    reader = request.body.reader
    if isinstance(reader, LengthReader):
        return bool(reader.length <= min(len(request.unreader.buf.getvalue()), _READ_OFF_BYTES))
    return reader.parser is None  # of a chunked body that was read to its end


def _problem(status: HTTPStatus, detail: str) -> bytes:
    """The whole answer to what never became a request of the application."""
    kind = status.name.lower().replace("_", "-")
    document = {
        "type": f"urn:scorehouse:problem:{kind}",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "instance": "",
    }
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {int(status)} {status.phrase}\r\nServer: scorehouse\r\nConnection: close\r\n"
        "Content-Type: application/problem+json\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
