"""Requests to one API: authentication, time limits, retries and problem answers.

What is retried: an answer 429, 502, 503 or 504 (and 409 with Retry-After: the same Idempotency-Key is still in flight), and a
connection that failed or broke, as long as repeating the request cannot do its work twice. Each pause doubles, unless the API
named one with Retry-After; `retry_for` bounds what a request may spend on pauses and time-outs. So a rate limit is waited
out, and a quota that is used up until midnight is told at once.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError, SSLError

from scorehouse_client.bodies import BLOCK_BYTES, Block, Body
from scorehouse_client.errors import ConnectionFailed, ScorehouseApiError
from scorehouse_client.pools import Pool, SecurePool

BytesProgress = Callable[[int, int | None], None]
HeadersTold = Callable[[Mapping[str, str]], None]
"""Called with the bytes sent (or received) and the total, None when that is not known; a retry starts again at 0."""

CONNECT_SECONDS = 10.0
# The API stores an upload completely before it answers.
ANSWER_SECONDS = 300.0
LONGEST_PAUSE = 10.0
# Nobody wants to wait long to hear that nothing listens at a URL that never worked.
FIRST_CONTACT_SECONDS = 1.0
REFUSED_FOR_NOW = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
# From a proxy whose API is away; it may have got the request.
LOST = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `repeatable` when doing it twice equals doing it once, `hold` for how long the API may keep it."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | bytes | None = None
    progress: BytesProgress | None = None
    repeatable: bool = True
    hold: float = 0.0
    stream: bool = False


class Transport:
    """Sends requests to the API at `url`; safe to share between threads."""

    def __init__(self, url: str, token: str | None, timeout: float, retry_for: float) -> None:
        try:
            parts = urllib3.util.parse_url(url)
        except urllib3.exceptions.LocationParseError:
            parts = urllib3.util.Url()
        if parts.scheme not in ("http", "https") or not parts.host:
            raise ConnectionFailed(url, "this is no URL of the form http://host:port")
        pool = Pool if parts.scheme == "http" else SecurePool
        self._pool = pool(parts.host, parts.port, maxsize=8)
        self._prefix = (parts.path or "").rstrip("/")
        self._headers = {"User-Agent": "scorehouse-client", "Accept": "application/json, */*"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout = timeout
        self._retry_for = retry_for
        self._answered = False
        self.url = url.rstrip("/")

    def close(self) -> None:
        self._pool.close()

    def json(self, request: Request) -> Any:
        """The decoded answer.

        Raises:
            ScorehouseApiError, ConnectionFailed
        """
        response = self.send(request)
        try:
            return json.loads(response.data)
        except ValueError as exc:
            raise ConnectionFailed(self.url, "the answer is not JSON; is this the URL of a Scorehouse API?") from exc

    def stream(
        self, request: Request, progress: BytesProgress | None = None, on_headers: HeadersTold | None = None
    ) -> Iterator[bytes]:
        """The answer's bytes as they arrive; an answer that breaks off raises ConnectionFailed, it never just ends."""
        response = self.send(request)
        if on_headers is not None:
            on_headers(response.headers)
        total = response.headers.get("Content-Length")
        received = 0
        try:
            for block in response.stream(BLOCK_BYTES):
                received += len(block)
                if progress is not None:
                    progress(received, int(total) if total else None)
                yield block
        except HTTPError as exc:
            raise ConnectionFailed(self.url, "the download broke off before its end") from exc
        finally:
            response.close()

    def answer(self, request: Request) -> urllib3.BaseHTTPResponse:
        """Whatever the API answers to one attempt."""
        try:
            return self._once(request)
        except HTTPError as exc:
            raise ConnectionFailed(self.url, _reason(exc)) from exc

    def send(self, request: Request) -> urllib3.BaseHTTPResponse:
        """Send until there is an answer below 300 or no retry is left."""
        spent, attempt = 0.0, 0
        while True:
            failure: ConnectionFailed | ScorehouseApiError
            pause, budget = _pause(attempt), self._retry_for
            try:
                response = self._once(request)
            except HTTPError as exc:
                failure = ConnectionFailed(self.url, _reason(exc))
                failure.__cause__ = exc
                again = _may_repeat(request, exc)
                spent += self._timeout if isinstance(exc, ReadTimeoutError) else 0.0
                budget = self._retry_for if self._answered else min(self._retry_for, FIRST_CONTACT_SECONDS)
            else:
                self._answered = True
                if response.status < HTTPStatus.MULTIPLE_CHOICES:
                    return response
                failure = _problem(response)
                again = _may_pass(request, failure)
                pause = pause if failure.retry_after is None else failure.retry_after
            if not again or not _restartable(request.body) or spent + pause > budget:
                raise failure
            time.sleep(pause)
            spent, attempt = spent + pause, attempt + 1

    def _once(self, request: Request) -> urllib3.BaseHTTPResponse:
        headers = {**self._headers, **request.headers}
        body: Any = request.body
        read_timeout = self._timeout + request.hold
        if body is not None and not isinstance(body, bytes):
            # Without a size urllib3 sends it chunked.
            headers.update({"Content-Length": str(body.size)} if body.size is not None else {})
            body = _counted(body, request.progress)
            read_timeout = max(read_timeout, ANSWER_SECONDS)
        with contextlib.closing(body) if hasattr(body, "close") else contextlib.nullcontext():
            return self._pool.urlopen(
                request.method,
                self._prefix + request.path + _query(request.query),
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_timeout),
                retries=False,
                redirect=False,
                preload_content=not request.stream,
            )


def _query(query: Mapping[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _counted(body: Body, progress: BytesProgress | None) -> Iterator[Block]:
    sent = 0
    for block in body.blocks():
        yield block
        # Back here the block has been handed to the system.
        sent += len(block)
        if progress is not None:
            progress(sent, body.size)


def _restartable(body: Body | bytes | None) -> bool:
    return body is None or isinstance(body, bytes) or body.restartable


def _may_repeat(request: Request, exc: HTTPError) -> bool:
    if isinstance(exc, SSLError):
        return False
    # Without a connection nothing was asked for.
    return request.repeatable or isinstance(exc, NewConnectionError)


def _may_pass(request: Request, problem: ScorehouseApiError) -> bool:
    if problem.status == HTTPStatus.CONFLICT:
        return problem.retry_after is not None
    return problem.status in REFUSED_FOR_NOW or (request.repeatable and problem.status in LOST)


def _pause(attempt: int) -> float:
    # Spread, so that clients which failed together do not come back together.
    spread = random.uniform(0.5, 1.0)  # noqa: S311  # no secret
    return spread * min(LONGEST_PAUSE, 0.5 * 2.0**attempt)


def _reason(exc: HTTPError) -> str:
    """The innermost text, without the object addresses that urllib3 puts before it."""
    inner = exc.args[-1] if exc.args and isinstance(exc.args[-1], Exception) else exc
    return str(inner).rsplit(": ", maxsplit=1)[-1].rstrip(".") or type(exc).__name__


def _problem(response: urllib3.BaseHTTPResponse) -> ScorehouseApiError:
    try:
        text = response.data
    except HTTPError:
        text = b""
    finally:
        response.release_conn()
    content = _object(text)
    reason = response.reason or HTTPStatus(response.status).phrase
    errors = [error if isinstance(error, dict) else {"detail": str(error)} for error in content.get("errors") or ()]
    return ScorehouseApiError(
        response.status,
        str(content.get("title") or reason),
        str(content.get("detail") or ("" if content else _excerpt(text))),
        errors,
        _seconds(response.headers.get("Retry-After")),
        _quota(content),
    )


def _quota(content: Mapping[str, Any]) -> tuple[str, int, int] | None:
    name, limit, used = (content.get(part) for part in ("quota", "limit", "used"))
    return (name, limit, used) if isinstance(name, str) and isinstance(limit, int) and isinstance(used, int) else None


def _object(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _excerpt(text: bytes) -> str:
    """A proxy in between answers in its own words."""
    words = re.sub(r"<[^>]*>", " ", text[:2000].decode("utf-8", "replace"))
    return " ".join(words.split())[:200]


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After is a number of seconds or a date."""
    if retry_after is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(retry_after))
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    return None
