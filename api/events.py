"""Server-sent events of one job: its document whenever something changed, and a comment to keep the line open."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from api.context import Context
from api.rendering import job_documents
from api.stopping import stopping
from db import jobs
from db.engine import transaction

_LOOK_SECONDS = 0.5
_KEEP_ALIVE_SECONDS = 15.0
# After this long the stream ends, and the client's EventSource connects again with Last-Event-ID.
_STREAM_SECONDS = 300.0


def stream(context: Context, tenant: str, job_id: UUID, last_event_id: str | None) -> Iterator[str]:
    """Events `progress` until the terminal one, `end`; ids are the number of rows that are done and the state."""
    deadline = time.monotonic() + _STREAM_SECONDS
    last, spoke = last_event_id, time.monotonic()
    with context.completions.expecting(job_id) as event:
        while time.monotonic() < deadline:
            with transaction(context.engine) as connection:
                document = job_documents(context, connection, [jobs.get(connection, tenant, job_id)])[0]
            over = document["state"] in jobs.TERMINAL
            name = f"{document['rows']['total'] - document['rows']['pending']}-{document['state']}"
            if name != last or over:  # also to a client that comes back for it: without `end` it would do so for ever
                yield _event(name, "end" if over else "progress", document)
                last, spoke = name, time.monotonic()
            if over:
                return
            if time.monotonic() - spoke > _KEEP_ALIVE_SECONDS:
                yield ": still here\n\n"
                spoke = time.monotonic()
            if event is None or stopping():
                # All places are taken, or this process ends; the client polls by reconnecting.
                yield "retry: 2000\n\n"
                return
            event.wait(_LOOK_SECONDS)


def _event(name: str, kind: str, document: dict[str, Any]) -> str:
    return f"id: {name}\nevent: {kind}\ndata: {json.dumps(document)}\n\n"
