"""Real Postgres and real Valkey from pip wheels, as children of this process, and the supervisor of a whole stack."""

from __future__ import annotations

from errors import ScorehouseError


class EmbeddedError(ScorehouseError):
    """An embedded server, or the stack around it, cannot be started, kept running or stopped."""
