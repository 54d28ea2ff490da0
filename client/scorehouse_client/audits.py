"""The calls about what became of predictions: labels, audits, alerts, the history of a record."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal
from urllib.parse import quote

from scorehouse_client.bodies import Source, body_of
from scorehouse_client.errors import AuditFailed, ScorehouseClientError
from scorehouse_client.transport import BytesProgress, Request, Transport

AuditKind = Literal["drift", "accuracy", "domain"]
Document = dict[str, Any]

FIRST_POLL, LONGEST_POLL = 0.05, 1.0


class AuditCalls:
    """Mixed into `Client`. Documents are as the HTTP reference has them."""

    _transport: Transport

    def upload_labels(
        self, source: Source, model: str, *, delimiter: str | None = None, progress: BytesProgress | None = None
    ) -> Document:
        """Feed back labels from a CSV (path or file open for bytes; `.gz` is told by the name), streamed.

        Its columns are `key` or `prediction_id`, `label` and, if wanted, `observed_at`. Doing it twice is harmless.
        Returns the counts: received, matched, unmatched, replaced, stale, rejected, and the first `rejections`.

        Raises:
            ScorehouseApiError, ConnectionFailed, SourceFailed
        """
        headers = {"Content-Type": "text/csv"}
        if PurePath(str(getattr(source, "name", source))).suffix == ".gz":
            headers["Content-Encoding"] = "gzip"
        query = {"model": model, "delimiter": delimiter}
        found: Document = self._transport.json(
            Request("POST", "/v1/labels", query, headers, body=body_of(source), progress=progress)
        )
        return found

    def put_labels(self, model: str, labels: Sequence[Mapping[str, Any]]) -> Document:
        """Feed back a few labels, each `{"key" or "prediction_id", "label", "observed_at"?}`; returns the counts."""
        body = json.dumps(list(labels), allow_nan=False).encode()
        headers = {"Content-Type": "application/json"}
        found: Document = self._transport.json(Request("POST", "/v1/labels", {"model": model}, headers, body=body))
        return found

    def audit(
        self,
        model: str,
        kind: AuditKind,
        *,
        window: str = "24h",
        end: str | None = None,
        version: str | None = None,
        alert: bool = False,
        timeout: float = 300.0,
    ) -> Document:
        """Audit a window now and wait for the result, at most `timeout` seconds.

        Args:
            window: its length: `24h`, `7d`, `4w`.
            end: RFC 3339; None: now.
            alert: let what is found move the model's alerts.

        Raises:
            AuditFailed: it could not be done; says why.
            ScorehouseApiError, ConnectionFailed
            ScorehouseClientError: it was not done in time.
        """
        given = {"kind": kind, "window": window, "end": end, "version": version, "alert": alert}
        body = json.dumps({name: value for name, value in given.items() if value is not None}).encode()
        headers = {"Content-Type": "application/json"}
        run = self._transport.json(
            Request("POST", f"/v1/models/{quote(model, safe='')}/audits", {}, headers, body=body)
        )
        pause, deadline = FIRST_POLL, time.monotonic() + timeout
        while run["state"] in ("queued", "running"):
            if time.monotonic() > deadline:
                raise ScorehouseClientError(
                    f"the audit is {run['state']} after {timeout:.0f} s; it goes on as /v1/audits/{run['id']}"
                )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_POLL)
            run = self._transport.json(Request("GET", f"/v1/audits/{run['id']}"))
        if run["state"] == "failed":
            raise AuditFailed(run)
        document: Document = run["document"]
        return document

    def latest_audit(self, model: str, kind: Literal["drift", "accuracy"], window: str | None = None) -> Document:
        """The last audit that is done."""
        found: Document = self._transport.json(
            Request("GET", f"/v1/models/{quote(model, safe='')}/{kind}", {"window": window})
        )
        return found

    def audits(self, model: str, kind: AuditKind, limit: int = 50, window: str | None = None) -> list[Document]:
        """The audits that are done, newest window first; of windows of one length (`24h`, `7d`) if given."""
        path = f"/v1/models/{quote(model, safe='')}/audits"
        query = {"kind": kind, "limit": limit, "window": window}
        found: list[Document] = self._transport.json(Request("GET", path, query))["audits"]
        return found

    def audit_report(self, audit_id: str) -> bytes:
        """An audit as a page of HTML that needs nothing else.

        Raises:
            ScorehouseApiError: status 409 while it is not done.
            ConnectionFailed
        """
        path = f"/v1/audits/{quote(audit_id, safe='')}/report"
        return b"".join(self._transport.stream(Request("GET", path, stream=True)))

    def audit_policy(self, model: str) -> Document:
        """How the model is audited by schedule."""
        found: Document = self._transport.json(Request("GET", f"/v1/models/{quote(model, safe='')}/audit-policy"))
        return found

    def set_audit_policy(self, model: str, **policy: Any) -> Document:
        """Change some of what `audit_policy` shows, and return the whole."""
        body = json.dumps({**self.audit_policy(model), **policy}).encode()
        headers = {"Content-Type": "application/json"}
        found: Document = self._transport.json(
            Request("PUT", f"/v1/models/{quote(model, safe='')}/audit-policy", {}, headers, body=body)
        )
        return found

    def alerts(self, model: str | None = None, state: str | None = None) -> list[Document]:
        """Alerts, the last changed first; those that are open unless a state is named."""
        found: list[Document] = self._transport.json(Request("GET", "/v1/alerts", {"model": model, "state": state}))[
            "alerts"
        ]
        return found

    def acknowledge(self, alert_id: str) -> Document:
        """Say that somebody has seen an alert."""
        found: Document = self._transport.json(Request("POST", f"/v1/alerts/{quote(alert_id, safe='')}/ack"))
        return found

    def suppress(self, alert_id: str, until: str) -> Document:
        """Hear nothing of an alert until a time (RFC 3339)."""
        body, headers = json.dumps({"until": until}).encode(), {"Content-Type": "application/json"}
        path = f"/v1/alerts/{quote(alert_id, safe='')}/suppress"
        found: Document = self._transport.json(Request("POST", path, {}, headers, body=body))
        return found

    def history(self, model: str, key: str, limit: int = 20) -> Document:
        """Every prediction of one record: inputs, version, label."""
        found: Document = self._transport.json(
            Request("GET", "/v1/predictions", {"model": model, "key": key, "limit": limit})
        )
        return found
