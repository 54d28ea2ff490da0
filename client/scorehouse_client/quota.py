"""The call about quotas."""

from __future__ import annotations

from typing import Any

from scorehouse_client.transport import Request, Transport


class QuotaCalls:
    """Mixed into `Client`."""

    _transport: Transport

    def quota(self) -> dict[str, Any]:
        """What the token's tenant may use, what it uses, and when that is free again, as the HTTP reference has it.

        Raises:
            ScorehouseApiError, ConnectionFailed
        """
        found: dict[str, Any] = self._transport.json(Request("GET", "/v1/quota"))
        return found
