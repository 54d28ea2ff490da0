"""The calls about retraining."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from scorehouse_client.errors import ScorehouseClientError
from scorehouse_client.transport import Request, Transport

Document = dict[str, Any]

FIRST_POLL, LONGEST_POLL = 0.2, 2.0
OPEN = ("queued", "running")


class TrainingCalls:
    """Mixed into `Client`. Documents are as the HTTP reference has them."""

    _transport: Transport

    def retrain(
        self,
        model: str,
        *,
        trigger: str | None = None,
        wait: bool = False,
        timeout: float = 3600.0,
        progress: Callable[[Document], None] | None = None,
    ) -> Document:
        """Retrain a model on what was scored and came true; with `wait` until it has ended, at most `timeout` seconds.

        The same `trigger` again returns the same training. `progress` is called with each new state.

        Raises:
            ScorehouseApiError, ConnectionFailed
            ScorehouseClientError: it did not end in time; it goes on.
        """
        # Repeated after a lost answer, it is still one training.
        headers = {"Content-Type": "application/json", "Idempotency-Key": trigger or uuid.uuid4().hex}
        run: Document = self._transport.json(Request("POST", _path(model, "trainings"), {}, headers, body=b"{}"))
        return self.wait_for_training(run, timeout, progress) if wait else run

    def wait_for_training(
        self, run: Document, timeout: float = 3600.0, progress: Callable[[Document], None] | None = None
    ) -> Document:
        """Poll until a training has ended. Raises as `retrain` does."""
        pause, deadline, seen = FIRST_POLL, time.monotonic() + timeout, ""
        while True:
            if progress is not None and run["state"] != seen:
                seen = run["state"]
                progress(run)
            if run["state"] not in OPEN:
                return run
            if time.monotonic() > deadline:
                raise ScorehouseClientError(
                    f"the training {run['id']} is {run['state']} after {timeout:.0f} s; it goes on"
                )
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_POLL)
            run = self.training(run["model"], run["id"])

    def trainings(self, model: str, limit: int = 50) -> list[Document]:
        """The trainings of a model, the last one first."""
        found: list[Document] = self._transport.json(Request("GET", _path(model, "trainings"), {"limit": limit}))[
            "trainings"
        ]
        return found

    def training(self, model: str, training_id: str) -> Document:
        found: Document = self._transport.json(Request("GET", _path(model, "trainings", training_id)))
        return found

    def training_policy(self, model: str) -> Document:
        """How the model is retrained."""
        found: Document = self._transport.json(Request("GET", _path(model, "training-policy")))
        return found

    def set_training_policy(self, model: str, **policy: Any) -> Document:
        """Change some of what `training_policy` shows, and return the whole."""
        body = json.dumps({**self.training_policy(model), **policy}).encode()
        headers = {"Content-Type": "application/json"}
        found: Document = self._transport.json(Request("PUT", _path(model, "training-policy"), {}, headers, body=body))
        return found


def _path(model: str, *rest: str) -> str:
    return "/v1/models/" + "/".join(quote(part, safe="") for part in (model, *rest))
