"""Labels: the truth about predictions, which arrives later, out of order and more than once.

A label is of a record key of a model, or of one prediction. The newest observation wins. A label whose prediction is not
there yet waits for it. Whatever changes marks the day of its prediction as dirty, to be counted anew.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import JSONB

from db.engine import cursor_of, elevated
from db.ids import lower_bound
from db.sql import statement
from db.tables import label, model_version, outcome_window
from records.key_filter import probe

# Up to this many keys are looked up one by one; for more, each block of the model is read once.
_FEW_KEYS = 50

_LOCK = 0x1ABE1  # of labels that are being stored, by model

# A million labels take some 20 seconds, and the answer may take as long as clients wait for it.
_UPLOAD_SETTINGS = "SET LOCAL work_mem = '64MB'; SET LOCAL statement_timeout = '280s'"
# A day is counted within the lease of its audit.
_COUNT_SETTINGS = "SET LOCAL statement_timeout = '280s'"

# Of COPY's text format.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

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
        for place, (truth, observed_at, record_key, job_id, row) in enumerate(labels, self._received):
            if observed_at is not before:  # mostly it is the same for many
                before, when = observed_at, (observed_at or self._now).isoformat()
            target = f"\\N\t{job_id}\t{row}" if record_key is None else f"{_escaped(record_key)}\t\\N\t\\N"
            lines.append(f"{place}\t{target}\t{_escaped(truth)}\t{when}\n")
        self._received += len(lines)
        cursor_of(self._connection).copy_from(
            io.StringIO("".join(lines)),
            "incoming",
            columns=("place", "record_key", "job_id", "row", "label", "observed_at"),
        )

    def store(self, tenant: str, model_id: int, version_ids: Sequence[int]) -> Counts:
        """Put them in, the newest of each target, and mark what they change as dirty."""
        # Shared by uploads, see `awaited`; before any row is locked, so that nobody waits for us while we wait here.
        self._connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_LOCK, model_id)))
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
        keys = list(
            self._connection.execute(
                sa.text("SELECT DISTINCT record_key FROM incoming WHERE record_key IS NOT NULL LIMIT :limit"),
                {"limit": _FEW_KEYS + 1},
            ).scalars()
        )
        self._connection.execute(
            sa.text("CREATE TEMPORARY TABLE hit (record_key text, job_id uuid, first_row int) ON COMMIT DROP")
        )
        if len(keys) > _FEW_KEYS:
            self._connection.execute(statement("find_many_keys"), {"version_ids": list(version_ids)})
            return
        with elevated(self._connection):
            for key in keys:
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
            sa.or_(
                sa.and_(label.c.job_id == job_id, label.c.row == row),
                sa.and_(label.c.record_key.is_not(None), label.c.record_key == sa.literal(record_key, sa.Text)),
            ),
        )
        .order_by(label.c.job_id.is_(None))
        .limit(1)
    ).one_or_none()


def mark_dirty(connection: Connection, days: Iterable[tuple[int, date]]) -> None:
    """Have the labelled predictions of these (version, day) counted anew."""
    for version_id, day in sorted(set(days)):
        connection.execute(statement("mark_dirty"), {"version_id": version_id, "day": day})


def awaited(connection: Connection, version_ids: Sequence[int]) -> set[int]:
    """Those of the versions whose model has a label, or is getting some.

    Labels that are being stored cannot be seen here, and may not have seen the predictions that ask. Their lock tells of
    them; where it is free we hold it until our transaction ends, and whoever stores labels then looks for predictions later.
    """
    query = sa.text(
        "SELECT id FROM ("
        " SELECT v.id, EXISTS (SELECT 1 FROM label l WHERE l.model_id = v.model_id) AS labelled,"
        "  pg_try_advisory_xact_lock(:lock, v.model_id) AS free"
        " FROM model_version v WHERE v.id = ANY (CAST(:ids AS int[])) OFFSET 0"
        ") AS version WHERE labelled OR NOT free"
    )
    return set(connection.execute(query, {"ids": list(version_ids), "lock": _LOCK}).scalars())


def dirty_days(connection: Connection, version_id: int) -> list[date]:
    """Days to be counted anew, the oldest first."""
    query = (
        sa.select(outcome_window.c.day)
        .where(outcome_window.c.version_id == version_id, outcome_window.c.dirty)
        .order_by(outcome_window.c.day)
    )
    return list(connection.execute(query).scalars())


def mark_matured(connection: Connection, version_id: int, horizon_days: int) -> None:
    """Have those days counted anew that were over `horizon_days` ago, where that was not done since."""
    connection.execute(statement("mark_matured"), {"version_id": version_id, "horizon_days": horizon_days})


def mark_all_dirty(connection: Connection, model_id: int) -> None:
    """Have all days of a model counted anew: they were counted by another rule."""
    versions = sa.select(model_version.c.id).where(model_version.c.model_id == model_id)
    window = outcome_window.c
    days = sa.select(window.version_id, window.day).where(window.version_id.in_(versions))
    mark_dirty(connection, [(row.version_id, row.day) for row in connection.execute(days)])


@dataclass(frozen=True, slots=True)
class Marking:
    """How a day was marked when a count of it began; `at` is the time by the database's clock."""

    last: str
    computed_at: datetime | None
    at: datetime


def begin_count(connection: Connection, version_id: int, day: date) -> Marking:
    """To be called before the day is read, in the transaction that counts it."""
    window = outcome_window.c
    row = connection.execute(
        sa.select(
            # Each marking is an update, of a day that is dirty already too: the transaction that made it is its name.
            sa.cast(sa.literal_column("xmin"), sa.Text).label("last"),
            window.computed_at,
            sa.func.now().label("at"),
        ).where(window.version_id == version_id, window.day == day)
    ).one()
    return Marking(row.last, row.computed_at, row.at)


def put_count(
    connection: Connection,
    version_id: int,
    day: date,
    begun: Marking,
    *,
    scored: int,
    labelled: int,
    outcomes: dict[str, object],
) -> None:
    """Store what was counted. The day stays dirty if it was marked since; a count that came later is not overwritten.

    When there are fewer predictions than before, retention removed some, and the earlier count is kept.
    """
    window = outcome_window.c
    found = {
        "scored": sa.literal(scored, sa.BigInteger),
        "labelled": sa.literal(labelled, sa.BigInteger),
        "outcomes": sa.literal(outcomes, JSONB),
    }
    connection.execute(
        sa.update(outcome_window)
        .where(
            window.version_id == version_id,
            window.day == day,
            window.computed_at.is_not_distinct_from(sa.literal(begun.computed_at, sa.TIMESTAMP(timezone=True))),
        )
        .values(
            {name: sa.case((window.scored <= scored, value), else_=window[name]) for name, value in found.items()}
            | {
                "computed_at": begun.at,
                "dirty": sa.cast(sa.literal_column("outcome_window.xmin"), sa.Text) != begun.last,
            }
        )
    )


def counted(connection: Connection, version_id: int, start: date, end: date) -> Sequence[sa.Row[Any]]:
    """The outcomes of the days from `start` up to `end`, without it."""
    return connection.execute(
        sa.select(outcome_window)
        .where(
            outcome_window.c.version_id == version_id,
            outcome_window.c.day >= start,
            outcome_window.c.day < end,
            outcome_window.c.outcomes.is_not(None),
        )
        .order_by(outcome_window.c.day)
    ).all()


def export_labelled(  # noqa: PLR0917 - what of whom, and where to
    connection: Connection,
    model_id: int,
    version_id: int,
    day: date,
    sink: Callable[[bytes], object],
    classes: Sequence[str] = (),
) -> None:
    """Stream every prediction of a version and a day with its label: prediction, probability, label, at; as CSV.

    The label is empty where there is none. The probability is that of the positive class; with `classes`, as labels name
    them and in the order of the model, it is that of the label. `sink` is called with pieces of any size.
    """
    connection.execute(sa.text(_COUNT_SETTINGS))
    query = labelled_query(connection, model_id, version_id, day, classes)
    cursor_of(connection).copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv)", _Sink(sink))


def labelled_query(
    connection: Connection, model_id: int, version_id: int, day: date, classes: Sequence[str] = ()
) -> str:
    """What `export_labelled` copies, with its parameters in it, which COPY does not take."""
    # An id is of the API's clock, which may be ahead of the database's: a day more does no harm.
    before = lower_bound(datetime.combine(day, time(), UTC) + timedelta(days=2))
    parameters = {"model_id": model_id, "version_id": version_id, "day": day, "before": str(before)}
    named = {f"class_{place}": name for place, name in enumerate(classes)}
    text = statement("labelled_predictions").text.format(**_probability(len(classes)))
    for name in (*parameters, *reversed(named)):
        text = text.replace(f":{name}", f"%({name})s")
    return str(cursor_of(connection).mogrify(text, parameters | named).decode())


def _probability(classes: int) -> dict[str, str]:
    """What `labelled_predictions.sql` unfolds of a block, and the probability made of it.

    A block has the probabilities of more than two classes one class after the other, each of all its rows.
    """
    if not classes:
        return {"arrays": "b.probability", "names": "probability", "probability": "element.probability"}
    rows, places = "cardinality(b.predictions)", range(classes)
    cases = " ".join(f"WHEN :class_{place} THEN element.probability_{place}" for place in places)
    return {
        "arrays": ", ".join(f"b.probabilities[{place} * {rows} + 1 : {place + 1} * {rows}]" for place in places),
        "names": ", ".join(f"probability_{place}" for place in places),
        "probability": f"CASE truth.label {cases} END",
    }


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
