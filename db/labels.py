"""Labels: the truth about predictions, which arrives later, out of order and more than once.

A label is of a record key of a model, or of one prediction. The newest observation wins. A label whose prediction is not
there yet waits for it. Whatever changes marks the day of its prediction as dirty, to be counted anew.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from db.engine import cursor_of
from db.sql import statement
from db.tables import label, outcome_window, profile_window
from records.key_filter import probe

# The keys of up to this many labels are looked up one by one; for more, each block of the model is read once.
_FEW_LABELS = 50

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

# The transaction that wrote the row: there is no cast from its type to a number, only by way of text.
_WRITTEN_BY = sa.cast(sa.cast(sa.literal_column("outcome_window.xmin"), sa.Text), sa.BigInteger)

# A million labels take some 20 seconds, and the answer may take as long as clients wait for it.
_UPLOAD_SETTINGS = "SET LOCAL work_mem = '64MB'; SET LOCAL statement_timeout = '280s'"
# A day is counted within the lease of its audit.
_COUNT_SETTINGS = "SET LOCAL statement_timeout = '280s'"

_STAGE = """
    CREATE TEMPORARY TABLE incoming (
        place integer NOT NULL, record_key text COLLATE "C", job_id uuid, row integer, label text NOT NULL,
        observed_at timestamptz NOT NULL
    ) ON COMMIT DROP
"""


class NewLabel(NamedTuple):  # made a million at a time
    """The truth about a record key, or about row `row` of job `job_id`."""

    label: str
    observed_at: datetime | None
    record_key: str | None = None
    job_id: UUID | None = None
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of labels.

    Of the keys and predictions that they are about, `matched` have a prediction and `unmatched` wait for theirs. `replaced`
    took the place of an earlier label. `stale` were older than another one of the same, in the upload or from before.
    """

    received: int
    matched: int
    unmatched: int
    replaced: int
    stale: int


class Staging:
    """Labels of one upload, in the transaction that stores them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._received = 0
        connection.execute(sa.text(_STAGE))
        self._now: datetime = connection.execute(sa.select(sa.func.now())).scalar_one()

    def add(self, labels: Iterable[NewLabel]) -> None:
        """Take some more; one without a time counts as observed now."""
        lines: list[str] = []
        before, when = None, self._now.isoformat()
        for place, (text, observed_at, record_key, job_id, row) in enumerate(labels, self._received):
            if observed_at is not before:  # mostly it is the same for many
                before, when = observed_at, (observed_at or self._now).isoformat()
            target = f"\\N\t{job_id}\t{row}" if record_key is None else f"{_escaped(record_key)}\t\\N\t\\N"
            lines.append(f"{place}\t{target}\t{_escaped(text)}\t{when}\n")
        self._received += len(lines)
        cursor_of(self._connection).copy_from(
            io.StringIO("".join(lines)),
            "incoming",
            columns=("place", "record_key", "job_id", "row", "label", "observed_at"),
        )

    def store(self, tenant: str, model_id: int, version_ids: Sequence[int]) -> Counts:
        """Put them in, the newest of each target, and mark what they change as dirty."""
        parameters = {"tenant": tenant, "version_ids": list(version_ids)}
        self._connection.execute(sa.text(f"{_UPLOAD_SETTINGS}; ANALYZE incoming"))
        stored = self._connection.execute(statement("store_labels"), {"model_id": model_id}).one()
        self._find_keys(version_ids)
        matched = int(self._connection.execute(statement("match_labels"), parameters).one().matched)
        return Counts(
            received=self._received,
            matched=matched,
            unmatched=int(stored.targets) - matched,
            replaced=int(stored.replaced),
            stale=self._received - int(stored.kept),
        )

    def _find_keys(self, version_ids: Sequence[int]) -> None:
        """Fill the temporary table `hit` (record_key, job_id, first_row) for the keys that are staged."""
        self._connection.execute(
            sa.text("CREATE TEMPORARY TABLE hit (record_key text, job_id uuid, first_row int) ON COMMIT DROP")
        )
        if self._received > _FEW_LABELS:
            self._connection.execute(statement("find_many_keys"), {"version_ids": list(version_ids)})
            return
        keys = self._connection.execute(
            sa.text("SELECT DISTINCT record_key FROM incoming WHERE record_key IS NOT NULL")
        ).scalars()
        for key in keys.all():
            wanted = probe(key)
            parameters = {"key": key, "place": wanted.place, "bits": wanted.bits, "version_ids": list(version_ids)}
            self._connection.execute(statement("find_key"), parameters)


def of_prediction(
    connection: Connection, model_id: int, job_id: UUID, row: int, record_key: str | None
) -> sa.Row[Any] | None:
    """The label of a prediction: its own before that of its record key."""
    return connection.execute(
        sa.select(label)
        .where(
            label.c.model_id == model_id,
            sa.or_(sa.and_(label.c.job_id == job_id, label.c.row == row), label.c.record_key == record_key),
        )
        .order_by(label.c.job_id.is_(None))
        .limit(1)
    ).one_or_none()


def mark_dirty(connection: Connection, days: Iterable[tuple[int, date]]) -> None:
    """Have the labelled predictions of these (version, day) counted anew."""
    for version_id, day in sorted(set(days)):
        connection.execute(statement("mark_dirty"), {"version_id": version_id, "day": day})


def have_any(connection: Connection, version_ids: Sequence[int]) -> set[int]:
    """Those of the versions whose model has a label."""
    query = sa.text(
        "SELECT v.id FROM model_version v WHERE v.id = ANY (CAST(:ids AS int[])) "
        "AND EXISTS (SELECT 1 FROM label l WHERE l.model_id = v.model_id)"
    )
    return set(connection.execute(query, {"ids": list(version_ids)}).scalars())


def dirty_days(connection: Connection, version_id: int) -> list[tuple[date, int]]:
    """Days to be counted anew, the oldest first, each with what `put_count` wants to have back."""
    query = (
        sa.select(outcome_window.c.day, _WRITTEN_BY)
        .where(outcome_window.c.version_id == version_id, outcome_window.c.dirty)
        .order_by(outcome_window.c.day)
    )
    return [(day, found) for day, found in connection.execute(query)]


def put_count(
    connection: Connection,
    version_id: int,
    day: date,
    mark: int,
    *,
    scored: int,
    labelled: int,
    outcomes: dict[str, object],
) -> None:
    """Store what a day was counted to be. It stays dirty if anything has marked it since `dirty_days` gave `mark`.

    The mark is the transaction that last wrote the row, so a count that breaks off leaves the day as dirty as it was.
    """
    connection.execute(
        sa.update(outcome_window)
        .where(outcome_window.c.version_id == version_id, outcome_window.c.day == day)
        .values(
            scored=scored, labelled=labelled, outcomes=outcomes, computed_at=sa.func.now(), dirty=mark != _WRITTEN_BY
        )
    )


def counted(connection: Connection, version_id: int, start: datetime, end: datetime) -> Sequence[sa.Row[Any]]:
    """The outcomes of the days that begin from `start`'s day up to `end`."""
    return connection.execute(
        sa.select(outcome_window)
        .where(
            outcome_window.c.version_id == version_id,
            outcome_window.c.day >= start.date(),
            outcome_window.c.day < end,
            outcome_window.c.outcomes.is_not(None),
        )
        .order_by(outcome_window.c.day)
    ).all()


def scored_between(connection: Connection, version_id: int, start: datetime, end: datetime) -> int:
    """Predictions of the rolled-up hours from `start` up to `end`."""
    return int(
        connection.execute(
            sa.select(sa.func.coalesce(sa.func.sum(profile_window.c.rows), 0)).where(
                profile_window.c.version_id == version_id,
                profile_window.c.start >= start,
                profile_window.c.start < end,
            )
        ).scalar_one()
    )


def export_labelled(
    connection: Connection, model_id: int, version_id: int, day: date, sink: Callable[[bytes], object]
) -> None:
    """Stream every prediction of a version and a day with its label: prediction, probability, label, at; as CSV.

    The label is empty where there is none. `sink` is called with pieces of any size.
    """
    connection.execute(sa.text(_COUNT_SETTINGS))
    cursor = cursor_of(connection)
    query = cursor.mogrify(
        statement("labelled_predictions")
        .text.replace(":model_id", "%(model_id)s")
        .replace(":version_id", "%(version_id)s")
        .replace(":day", "%(day)s"),
        {"model_id": model_id, "version_id": version_id, "day": day},
    ).decode()
    cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv)", _Sink(sink))


class _Sink(io.RawIOBase):
    def __init__(self, write: Callable[[bytes], object]) -> None:
        super().__init__()
        self._write = write

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        block = bytes(data)  # type: ignore[call-overload]  # any buffer, as of io.RawIOBase
        self._write(block)
        return len(block)


def _escaped(text: str) -> str:
    """For COPY's text format. To look first costs a sixth of translating."""
    return text if text.isprintable() and "\\" not in text else text.translate(_ESCAPES)
