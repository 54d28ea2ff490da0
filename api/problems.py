"""Errors over HTTP: RFC 9457 problem details, and the one table that says which status an error has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, json, request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]  # ships no type information
from pydantic import BaseModel, Field, ValidationError
from werkzeug.exceptions import HTTPException

import errors
import logs
from api.bodies import Disconnected, TimedOut
from errors import Problem, ScorehouseError

_log = logs.get(__name__)

# The first class that matches counts, so subclasses stand before their bases.
STATUS: dict[type[ScorehouseError], HTTPStatus] = {
    errors.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Gone: HTTPStatus.GONE,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Busy: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedMedia: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    TimedOut: HTTPStatus.REQUEST_TIMEOUT,
    Disconnected: HTTPStatus.BAD_REQUEST,
}
_RETRY_SECONDS = 2

# What pydantic says in terms of Python.
_SENTENCES = {
    "missing": "is required",
    "extra_forbidden": "is not known here; check its spelling",
    "model_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "string_unicode": "is not valid Unicode text (it holds a lone surrogate)",
}


class ProblemDetail(BaseModel):
    """One place in the input that is at fault."""

    detail: str
    pointer: str = Field(description="JSON pointer into the body, or #/columns/NAME, #/line/N, #/query/NAME")


class ProblemDocument(BaseModel):
    """The body of every error, `application/problem+json` (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[ProblemDetail] = Field(default_factory=list)


def install(app: Flask) -> None:
    app.register_error_handler(ScorehouseError, from_domain)
    app.register_error_handler(HTTPException, from_http)
    app.register_error_handler(ParseException, from_framing)
    app.register_error_handler(Exception, from_bug)


def from_domain(error: ScorehouseError) -> Response:
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("request_failed", path=request.path, status=int(status), reason=str(error))
    problems = error.problems if isinstance(error, errors.InvalidInput) else ()
    response = _render(status, type(error).__name__, str(error), list(problems))
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="scorehouse"'
    retry_after = getattr(error, "retry_after", None)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        retry_after = _RETRY_SECONDS
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def from_http(error: HTTPException) -> Response:
    if error.response is not None:
        return error.response  # type: ignore[return-value]  # our own validation answers arrive this way
    status = HTTPStatus(error.code or 500)
    response = _render(status, status.phrase, error.description or status.phrase, [])
    for name, value in error.get_headers():
        if name not in {"Content-Type", "Content-Length"}:
            response.headers[name] = value
    return response


def from_framing(error: Exception) -> Response:
    """A body whose chunks cannot be told apart, read by Flask itself."""
    return from_domain(Disconnected.by(error))


def from_validation(error: ValidationError) -> Response:
    """What pydantic found, one problem per place."""
    where = next((part for part in ("query", "header", "path") if error.title.lower().endswith(part)), None)
    problems = [
        Problem(_SENTENCES.get(item["type"]) or _sentence(item["msg"]), _pointer(where, item["loc"]))
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    detail = "; ".join(f"{problem.pointer[2:] or 'the body'}: {problem.detail}" for problem in problems[:5])
    return _render(HTTPStatus.UNPROCESSABLE_ENTITY, "InvalidInput", detail, problems)


def from_bug(error: Exception) -> Response:
    """Anything else is ours to mend: the log has it, the client gets no internals."""
    _log.exception("bug", path=request.path, method=request.method)
    return _render(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "InternalError",
        f"this is a defect of the server ({type(error).__name__}); its log has the details",
        [],
    )


def _render(status: HTTPStatus, name: str, detail: str, problems: list[Problem]) -> Response:
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])|[ ']+", "-", name).lower()
    document: dict[str, Any] = {
        "type": f"urn:scorehouse:problem:{kind}",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "instance": request.path,
    }
    if problems:
        document["errors"] = [{"detail": problem.detail, "pointer": problem.pointer} for problem in problems]
    # ASCII, because a name that is quoted in the detail may hold what UTF-8 cannot encode.
    return Response(json.dumps(document, ensure_ascii=True), status=int(status), mimetype="application/problem+json")


def _pointer(where: str | None, location: Sequence[int | str]) -> str:
    """Parts of a JSON pointer escape `~` and `/`."""
    parts = [*([where] if where else []), *(str(part).replace("~", "~0").replace("/", "~1") for part in location)]
    return "#/" + "/".join(parts) if parts else "#"


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ")
