"""A WSGI application that says what reached it; what the API's gunicorn makes of connections is seen by its answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

LARGE_BYTES = 64 * 1024 * 1024
_BLOCK = b"x" * 1024 * 1024


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/large":
        start_response("200 OK", [("Content-Length", str(LARGE_BYTES))])
        return (_BLOCK for _ in range(LARGE_BYTES // len(_BLOCK)))
    if path == "/refused":  # without a look at the body
        start_response("401 Unauthorized", [("Content-Length", "0")])
        return []
    body = environ["wsgi.input"].read()
    told = {"method": environ["REQUEST_METHOD"], "path": path, "body": len(body)}
    answer = json.dumps(told).encode()
    start_response("200 OK", [("Content-Length", str(len(answer))), ("Content-Type", "application/json")])
    return [answer]
