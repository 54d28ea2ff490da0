"""Statistics of what was scored: written by each finish, rolled up into hours, and counted for Prometheus.

A finish adds rows to `chunk_profile` in its own transaction. The roll-up takes those of visible jobs out again, merges
them into `profile_window`, an hour each, and adds what they counted to `scoring_total`. Whoever reads sums both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from db.tables import (
    chunk_profile,
    event_total,
    job,
    model,
    model_version,
    profile_window,
    reference_profile,
    scoring_total,
)

# The endpoint of jobs that try a version before it is deployed: they are nobody's, and no statistics count them.
VALIDATION = "validation"

# Upper bounds in seconds of the histogram `ml_prediction_duration_seconds`; the last bucket has none.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

_LOCK = 0x5C0F  # one roll-up at a time

# Hours stay hours this long, so that an audit can begin at any of them; then they become days.
_HOURLY = timedelta(days=8)


@dataclass(frozen=True, slots=True)
class ChunkProfile:
    """What one finish counted of the chunks of one version, endpoint and `as_of`; `seconds` from submission, per chunk."""

    version_id: int
    job_id: UUID
    as_of: datetime | None
    endpoint: str
    rows: int
    errors: Mapping[str, int]
    seconds: Sequence[float]
    schema_digest: str | None
    profile: bytes | None


@dataclass(frozen=True, slots=True)
class Reference:
    """What a version is judged against, as it is stored."""

    schema: dict[str, Any]
    schema_digest: str
    profile: bytes
    outcomes: dict[str, Any] | None
    calibration: dict[str, Any] | None


_ADD = sa.insert(chunk_profile).values(
    version_id=sa.bindparam("version_id"),
    job_id=sa.bindparam("job_id"),
    at=sa.func.coalesce(sa.bindparam("as_of", type_=chunk_profile.c.at.type), sa.func.now()),
    endpoint=sa.bindparam("endpoint"),
    rows=sa.bindparam("rows"),
    errors=sa.bindparam("errors"),
    seconds=sa.bindparam("seconds"),
    schema_digest=sa.bindparam("schema_digest"),
    profile=sa.bindparam("profile"),
)


def add(connection: Connection, profiles: Sequence[ChunkProfile]) -> None:
    counted = [item for item in profiles if item.endpoint != VALIDATION]
    for item in counted:  # one or two: of a chunk, or of the endpoints that some hundreds of singles came from
        connection.execute(
            _ADD,
            {
                "version_id": item.version_id,
                "job_id": item.job_id,
                "as_of": item.as_of,
                "endpoint": item.endpoint,
                "rows": item.rows,
                "errors": dict(item.errors),
                "seconds": list(item.seconds),
                "schema_digest": item.schema_digest,
                "profile": item.profile,
            },
        )


def discard(connection: Connection, job_id: UUID) -> None:
    """Forget an upload that did not complete."""
    connection.execute(sa.delete(chunk_profile).where(chunk_profile.c.job_id == job_id))


def lock_roll_up(connection: Connection) -> bool:
    """Whether this transaction may roll up: not while another one does."""
    return bool(connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK))).scalar_one())


def take(connection: Connection, limit: int) -> Sequence[sa.Row[Any]]:
    """Remove the oldest rows of `chunk_profile` whose jobs are visible, and return them."""
    oldest = sa.select(chunk_profile.c.id).where(_visible()).order_by(chunk_profile.c.id).limit(limit)
    return connection.execute(
        sa.delete(chunk_profile).where(chunk_profile.c.id.in_(oldest)).returning(chunk_profile)
    ).all()


def window(connection: Connection, version_id: int, schema_digest: str, start: datetime) -> bytes | None:
    """The profile of an hour, if there is one."""
    key = profile_window.c
    return connection.execute(
        sa.select(key.profile).where(
            key.version_id == version_id, key.schema_digest == schema_digest, key.start == start
        )
    ).scalar_one_or_none()


def put_window(
    connection: Connection, version_id: int, schema_digest: str, start: datetime, *, rows: int, profile: bytes
) -> None:
    values = {"rows": rows, "profile": profile}
    connection.execute(
        insert(profile_window)
        .values(version_id=version_id, schema_digest=schema_digest, start=start, **values)
        .on_conflict_do_update(constraint="profile_window_pkey", set_=values)
    )


def windows_before(connection: Connection, before: datetime) -> Sequence[sa.Row[Any]]:
    """The hours before a moment that are not the only ones of their day, in order."""
    day = sa.func.date_trunc("day", profile_window.c.start, "UTC")
    several = (
        sa.select(profile_window.c.version_id, profile_window.c.schema_digest, day.label("day"))
        .where(profile_window.c.start < before)
        .group_by(profile_window.c.version_id, profile_window.c.schema_digest, day)
        .having(sa.or_(sa.func.count() > 1, sa.func.min(profile_window.c.start) != day))
        .limit(100)
        .subquery()
    )
    return connection.execute(
        sa.select(profile_window, several.c.day)
        .join(
            several,
            sa.and_(
                several.c.version_id == profile_window.c.version_id,
                several.c.schema_digest == profile_window.c.schema_digest,
                several.c.day == day,
            ),
        )
        .order_by(profile_window.c.version_id, profile_window.c.schema_digest, profile_window.c.start)
    ).all()


def drop_window(connection: Connection, version_id: int, schema_digest: str, start: datetime) -> None:
    key = profile_window.c
    connection.execute(
        sa.delete(profile_window).where(
            key.version_id == version_id, key.schema_digest == schema_digest, key.start == start
        )
    )


def add_total(
    connection: Connection,
    version_id: int,
    endpoint: str,
    *,
    rows: int,
    errors: Mapping[str, int],
    seconds: Sequence[float],
) -> None:
    """Add to the counters of a version and endpoint."""
    connection.execute(
        sa.text(
            """
            INSERT INTO scoring_total AS t (version_id, endpoint, rows, errors, seconds_sum, seconds_counts)
            VALUES (:version_id, :endpoint, :rows, CAST(:errors AS jsonb), :sum, CAST(:counts AS bigint[]))
            ON CONFLICT (version_id, endpoint) DO UPDATE SET
                rows = t.rows + EXCLUDED.rows,
                errors = (
                    SELECT COALESCE(jsonb_object_agg(code, total), '{}')
                    FROM (SELECT key AS code, sum(value::bigint) AS total
                          FROM (SELECT * FROM jsonb_each_text(t.errors) UNION ALL
                                SELECT * FROM jsonb_each_text(EXCLUDED.errors)) AS each_error GROUP BY key) AS summed
                ),
                seconds_sum = t.seconds_sum + EXCLUDED.seconds_sum,
                seconds_counts = (
                    SELECT array_agg(a + b ORDER BY place)
                    FROM unnest(t.seconds_counts, EXCLUDED.seconds_counts) WITH ORDINALITY AS pair (a, b, place)
                )
            """
        ),
        {
            "version_id": version_id,
            "endpoint": endpoint,
            "rows": rows,
            "errors": json.dumps(dict(errors)),
            "sum": float(sum(seconds)),
            "counts": bucket_counts(seconds),
        },
    )


def bucket_counts(seconds: Sequence[float]) -> list[int]:
    """How many of them fall into each bucket (not cumulative); the last is of those beyond all bounds."""
    counts = [0] * (len(BUCKETS) + 1)
    for value in seconds:
        counts[next((place for place, bound in enumerate(BUCKETS) if value <= bound), len(BUCKETS))] += 1
    return counts


def count_event(connection: Connection, name: str, by: int) -> None:
    """Add to a counter that belongs to no version, such as rescues."""
    connection.execute(
        insert(event_total)
        .values(name=name, count=by)
        .on_conflict_do_update(index_elements=[event_total.c.name], set_={"count": event_total.c.count + by})
    )


def between(
    connection: Connection, version_id: int, schema_digest: str, start: datetime, end: datetime
) -> Sequence[bytes]:
    """The profiles of a version from `start` up to `end`, rolled up or not; both as `whole` gives them."""
    rolled = sa.select(profile_window.c.profile).where(
        profile_window.c.version_id == version_id,
        profile_window.c.schema_digest == schema_digest,
        profile_window.c.start >= start,
        profile_window.c.start < end,
    )
    fresh = sa.select(chunk_profile.c.profile).where(
        chunk_profile.c.version_id == version_id,
        chunk_profile.c.schema_digest == schema_digest,
        chunk_profile.c.at >= start,
        chunk_profile.c.at < end,
        chunk_profile.c.profile.is_not(None),
        _visible(),
    )
    return [bytes(row) for row in connection.execute(sa.union_all(rolled, fresh)).scalars()]


def scored(connection: Connection, version_id: int, start: datetime, end: datetime) -> int:
    """How many rows of a version were scored from `start` up to `end`; both as `whole` gives them."""
    rolled = sa.select(profile_window.c.rows).where(
        profile_window.c.version_id == version_id, profile_window.c.start >= start, profile_window.c.start < end
    )
    fresh = sa.select(chunk_profile.c.rows).where(
        chunk_profile.c.version_id == version_id,
        chunk_profile.c.at >= start,
        chunk_profile.c.at < end,
        _visible(),
    )
    both = sa.union_all(rolled, fresh).subquery()
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(both.c.rows), 0))).scalar_one())


def whole(start: datetime, end: datetime, now: datetime) -> tuple[datetime, datetime]:
    """The hours (of long ago: the days) that a window touches: what is rolled up is not divided again."""
    hourly = hourly_since(now)
    first, last = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0), _hour_from(end)
    return days(start, start)[0] if first < hourly else first, days(end, end)[1] if last < hourly else last


def days(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """The days (UTC) that a window touches."""
    first, last = (moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) for moment in (start, end))
    return first, last if last == end else last + timedelta(days=1)


def hourly_since(now: datetime) -> datetime:
    """Windows that begin before this are days, or become so at any moment."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - _HOURLY


def put_reference(connection: Connection, version_id: int, reference: Reference) -> None:
    values = {
        "schema": reference.schema,
        "schema_digest": reference.schema_digest,
        "profile": reference.profile,
        "outcomes": reference.outcomes,
        "calibration": reference.calibration,
    }
    connection.execute(
        insert(reference_profile)
        .values(version_id=version_id, **values)
        .on_conflict_do_update(index_elements=[reference_profile.c.version_id], set_=values)
    )


def reference(connection: Connection, version_id: int) -> Reference | None:
    """None for a version that was registered before there were profiles."""
    row = connection.execute(
        sa.select(reference_profile).where(reference_profile.c.version_id == version_id)
    ).one_or_none()
    if row is None:
        return None
    return Reference(row.schema, row.schema_digest, bytes(row.profile), row.outcomes, row.calibration)


def totals(connection: Connection) -> Sequence[sa.Row[Any]]:
    """The counters of all versions: model, version, endpoint, rows, errors, seconds_sum, seconds_counts.

    One statement, so that a roll-up in between cannot be seen half done.
    """
    fresh = sa.select(
        chunk_profile.c.version_id,
        chunk_profile.c.endpoint,
        chunk_profile.c.rows,
        chunk_profile.c.errors,
        chunk_profile.c.seconds,
        sa.null().label("seconds_sum"),
        sa.null().label("seconds_counts"),
    ).where(_visible())
    rolled = sa.select(
        scoring_total.c.version_id,
        scoring_total.c.endpoint,
        scoring_total.c.rows,
        scoring_total.c.errors,
        sa.null().label("seconds"),
        scoring_total.c.seconds_sum,
        scoring_total.c.seconds_counts,
    )
    both = sa.union_all(rolled, fresh).subquery()
    return connection.execute(
        sa.select(both, model.c.name.label("model"), model_version.c.version.label("model_version"))
        .join(model_version, model_version.c.id == both.c.version_id)
        .join(model, model.c.id == model_version.c.model_id)
    ).all()


def events(connection: Connection) -> dict[str, int]:
    return {
        name: int(count) for name, count in connection.execute(sa.select(event_total.c.name, event_total.c["count"]))
    }


def _visible() -> sa.ColumnElement[bool]:
    """Not of an upload that is still being received. One whose job retention removed still counts."""
    return ~sa.exists().where(job.c.id == chunk_profile.c.job_id, job.c.state == "receiving")


def _hour_from(moment: datetime) -> datetime:
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour if hour == moment else hour + timedelta(hours=1)
