"""What a worker lets the broker ask of it: to be looked at.

Celery's remote control comes as broadcast messages, so whoever may write to the broker could shut workers down, let them
forget their queues, or limit their rates. Only what Flower reads is answered, unless Flower was given leave to act.
"""

from __future__ import annotations

from celery.worker.control import Panel

# Of Celery's inspections those that only tell; others dump memory, write files or take over what the sender knows.
READING = frozenset(
    {"active", "active_queues", "conf", "ping", "registered", "report", "reserved", "revoked", "scheduled", "stats"}
)


def install(*, read_only: bool) -> None:
    """Take out of this process the commands that act; a worker logs and drops those that it does not have."""
    if read_only:
        for name in set(Panel.data) - READING:
            del Panel.data[name]
