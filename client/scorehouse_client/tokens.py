"""The calls about tokens and the audit trail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from scorehouse_client.transport import Request, Transport

Document = dict[str, Any]

_JSON = {"Content-Type": "application/json"}
_PAGE = 1000


class TokenCalls:
    """Mixed into `Client`. Documents are as the HTTP reference has them; the token in use needs the scope `admin`."""

    _transport: Transport

    def create_token(self, subject: str, scopes: Sequence[str], ttl_seconds: int) -> Document:
        """Make a token of the own tenant; its text is under `token`, and can be read nowhere else.

        It does nothing that the token in use cannot do, ends no later than that one, and is revoked with it.
        """
        body = json.dumps({"subject": subject, "scopes": list(scopes), "ttl_seconds": ttl_seconds}).encode()
        # Repeated after a lost answer, it would leave a token behind that nobody has.
        request = Request("POST", "/v1/tokens", {}, _JSON, body=body, repeatable=False)
        found: Document = self._transport.json(request)
        return found

    def tokens(self, subject: str | None = None) -> list[Document]:
        """All tokens of the own tenant that are on record, the last made first."""
        found: list[Document] = []
        query: dict[str, Any] = {"subject": subject, "limit": _PAGE, "after": None}
        while True:
            page = self._transport.json(Request("GET", "/v1/tokens", dict(query)))
            found += page["tokens"]
            query["after"] = page["next"]
            if not query["after"]:
                return found

    def revoke_token(self, jti: str, why: str | None = None) -> Document:
        """End a token of the own tenant, and those that were made with it; twice is the same as once."""
        path = f"/v1/tokens/{quote(jti, safe='')}/revoke"
        body = json.dumps({"why": why}).encode()
        found: Document = self._transport.json(Request("POST", path, {}, _JSON, body=body))
        return found

    def audit_trail(
        self, *, act: str | None = None, by: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[Document]:
        """Who did which privileged act in the own tenant, the last one first; at most `limit`, older than `after`."""
        query = {"act": act, "by": by, "after": after, "limit": limit}
        found: list[Document] = self._transport.json(Request("GET", "/v1/audit-trail", query))["entries"]
        return found
