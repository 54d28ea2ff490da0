"""One request to a stack, or to nginx before it, on a connection of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from errors import Unavailable

_SECONDS = urllib3.Timeout(connect=3.0, read=45.0)  # /predict waits 30 s for a worker


@dataclass(frozen=True)
class Answer:
    status: int
    release: str | None
    """Of the API that answered, with its stack: `0.2.0+green`."""
    body: Any
    """The JSON of the answer, None if it is none."""

    @property
    def told(self) -> str:
        """What a failed request says of itself."""
        detail = self.body.get("detail") if isinstance(self.body, dict) else None
        return f"{self.status}" + (f", {detail}" if detail else "")


def ask(url: str, *, token: str | None = None, record: Mapping[str, Any] | None = None) -> Answer:
    """GET `url`, or POST a record to it.

    Raises:
        Unavailable: nobody answered.
    """
    headers = {"Connection": "close"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    body = None
    if record is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(record).encode()
    with urllib3.PoolManager(retries=False, timeout=_SECONDS) as pool:
        try:
            found = pool.request("GET" if body is None else "POST", url, body=body, headers=headers, redirect=False)
        except HTTPError as exc:
            cause = exc.__cause__
            reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else exc
            raise Unavailable(f"{url} does not answer ({reason})") from exc
    try:
        content = json.loads(found.data)
    except ValueError:
        content = None
    return Answer(found.status, found.headers.get("Scorehouse-Release"), content)
