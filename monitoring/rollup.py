"""The roll-up: what finishes have counted becomes hours, and hours become days.

One transaction per batch, one roll-up at a time; whoever reads sums what is rolled up and what is not (`db.profiles`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from db import labels, profiles
from db.engine import transaction
from monitoring.profile import Profile, from_bytes, merge
from monitoring.schema import ProfileSchema

_BATCH = 2_000


def roll_up(engine: Engine) -> int:
    """Roll up all that is there; returns how many entries, 0 when another worker is at it."""
    total = 0
    while True:
        with transaction(engine) as connection:
            if not profiles.lock_roll_up(connection):
                return total
            rows = profiles.take(connection, _BATCH)
            _add_totals(connection, rows)
            _add_windows(connection, rows)
            _mark_dirty(connection, rows)
            total += len(rows)
        if len(rows) < _BATCH:
            return total


def make_days(engine: Engine, now: datetime | None = None) -> int:
    """Merge the hours of days that are long past; returns how many days."""
    with transaction(engine) as connection:
        if not profiles.lock_roll_up(connection):
            return 0
        days: dict[tuple[int, str, datetime], list[Any]] = defaultdict(list)
        for row in profiles.windows_before(connection, profiles.hourly_since(now or datetime.now(UTC))):
            days[row.version_id, row.schema_digest, row.day].append(row)
        for (version_id, digest, day), hours in days.items():
            merged = _merged(connection, version_id, digest, [bytes(row.profile) for row in hours])
            for row in hours:
                profiles.drop_window(connection, version_id, digest, row.start)
            if merged is not None:
                rows = sum(row.rows for row in hours)
                profiles.put_window(connection, version_id, digest, day, rows=rows, profile=merged.to_bytes())
        return len(days)


def _add_totals(connection: Connection, rows: Sequence[sa.Row[Any]]) -> None:
    grouped: dict[tuple[int, str], list[Any]] = defaultdict(list)
    for row in rows:
        grouped[row.version_id, row.endpoint].append(row)
    for (version_id, endpoint), group in sorted(grouped.items()):
        profiles.add_total(
            connection,
            version_id,
            endpoint,
            rows=sum(row.rows for row in group),
            errors=sum((Counter(row.errors) for row in group), Counter()),
            seconds=[value for row in group for value in row.seconds],
        )


def _add_windows(connection: Connection, rows: Sequence[sa.Row[Any]]) -> None:
    grouped: dict[tuple[int, str, datetime], list[bytes]] = defaultdict(list)
    for row in rows:
        if row.profile is not None:
            hour = row.at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            grouped[row.version_id, row.schema_digest, hour].append(bytes(row.profile))
    for (version_id, digest, hour), found in grouped.items():
        earlier = profiles.window(connection, version_id, digest, hour)
        merged = _merged(connection, version_id, digest, [*found, *([bytes(earlier)] if earlier is not None else [])])
        if merged is not None:
            profiles.put_window(connection, version_id, digest, hour, rows=merged.rows, profile=merged.to_bytes())


def _merged(connection: Connection, version_id: int, digest: str, found: Sequence[bytes]) -> Profile | None:
    """None when the version has another reference by now: profiles of different schemas do not merge."""
    reference = profiles.reference(connection, version_id)
    if reference is None or reference.schema_digest != digest:
        return None
    schema = ProfileSchema.model_validate(reference.schema)
    return merge([from_bytes(schema, item) for item in found])


def _mark_dirty(connection: Connection, rows: Sequence[sa.Row[Any]]) -> None:
    """Labels may have waited for these predictions."""
    labelled = labels.awaited(connection, sorted({row.version_id for row in rows}))
    labels.mark_dirty(
        connection, ((row.version_id, row.at.astimezone(UTC).date()) for row in rows if row.version_id in labelled)
    )
