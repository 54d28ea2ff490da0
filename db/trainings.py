"""Retraining: how each model is retrained, and its runs, each asked for once per trigger and run by one worker at a time.

`training_run` is a queue like `audit_run`: Postgres says what is due, a permit only wakes a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from db import models
from db.ids import uuid7
from db.models import Version
from db.tables import model, model_alias, model_version, training_policy, training_run
from errors import NotFound

TriggerKind = Literal["hand", "schedule", "alert"]
Ending = Literal["succeeded", "failed", "skipped"]

ATTEMPTS = 3
#: A fit renews its lease long before it is over; when its worker dies, another one takes it up after this.
LEASE_SECONDS = 60
_OPEN = ("queued", "running")


@dataclass(frozen=True, slots=True)
class Policy:
    """How a model is retrained; the defaults hold for a model that says nothing."""

    promotion: str = "manual"
    every_days: int | None = None
    on_alert: bool = False
    min_labelled_rows: int = 1_000
    max_rows: int = 200_000
    max_age_days: int = 365
    recipe: str | None = None


def policy(connection: Connection, model_id: int) -> Policy:
    row = connection.execute(sa.select(training_policy).where(training_policy.c.model_id == model_id)).one_or_none()
    if row is None:
        return Policy()
    return Policy(**{name: row._mapping[name] for name in asdict(Policy())})


def set_policy(connection: Connection, model_id: int, wanted: Policy) -> None:
    """A schedule counts from now on; one that stays the same goes on."""
    values = asdict(wanted)
    same = training_policy.c.every_days.is_not_distinct_from(wanted.every_days)
    connection.execute(
        insert(training_policy)
        .values(model_id=model_id, scheduled_since=sa.func.now(), **values)
        .on_conflict_do_update(
            index_elements=[training_policy.c.model_id],
            set_=values | {"scheduled_since": sa.case((same, training_policy.c.scheduled_since), else_=sa.func.now())},
        )
    )


def champion(connection: Connection, model_id: int) -> Version | None:
    """The production version of a model."""
    version_id = connection.execute(
        sa.select(model_alias.c.version_id).where(
            model_alias.c.model_id == model_id, model_alias.c.alias == "production"
        )
    ).scalar_one_or_none()
    return None if version_id is None else models.by_id(connection, version_id)


def request(connection: Connection, model_id: int, kind: TriggerKind, key: str, *, by: str) -> UUID:
    """Ask for a run; the same trigger again is the same run."""
    run_id: UUID | None = connection.execute(
        insert(training_run)
        .values(id=uuid7(), model_id=model_id, trigger_kind=kind, trigger_key=key, by=by)
        .on_conflict_do_nothing(constraint="training_run_once_key")
        .returning(training_run.c.id)
    ).scalar_one_or_none()
    if run_id is not None:
        return run_id
    earlier: UUID = connection.execute(
        sa.select(training_run.c.id).where(
            training_run.c.model_id == model_id, training_run.c.trigger_kind == kind, training_run.c.trigger_key == key
        )
    ).scalar_one()
    return earlier


def request_for_alert(connection: Connection, model_id: int, event_id: int) -> UUID | None:
    """Ask for a run because an alert fired, if the policy wants that and no run of the model is open.

    When a column drifts, others often do as well: one run answers all of them.
    """
    if not policy(connection, model_id).on_alert:
        return None
    is_open = sa.exists().where(training_run.c.model_id == model_id, training_run.c.state.in_(_OPEN))
    if connection.execute(sa.select(is_open)).scalar_one():
        return None
    return request(connection, model_id, "alert", str(event_id), by="alert")


def request_due(connection: Connection) -> int:
    """Ask for every scheduled run whose day has come; returns how many are new.

    A slot is a day (UTC, by the database's clock) whose number since 1970 the interval divides. Only the last slot counts,
    and none that began before the schedule was set: what an outage left out is one run, not many.
    """
    day = sa.func.floor(sa.func.extract("epoch", sa.func.now()) / 86_400)
    slot = sa.func.to_timestamp((day - sa.func.mod(sa.cast(day, sa.Integer), training_policy.c.every_days)) * 86_400)
    key = sa.func.to_char(sa.func.timezone("UTC", slot), "YYYY-MM-DD")
    due = connection.execute(
        sa.select(training_policy.c.model_id, key.label("key"))
        .join(
            model_alias,
            (model_alias.c.model_id == training_policy.c.model_id) & (model_alias.c.alias == "production"),
        )
        .where(training_policy.c.every_days.is_not(None), slot > training_policy.c.scheduled_since)
    ).all()
    missing = [
        {"id": uuid7(), "model_id": row.model_id, "trigger_kind": "schedule", "trigger_key": row.key, "by": "schedule"}
        for row in due
    ]
    if not missing:
        return 0
    return len(
        connection.execute(
            insert(training_run)
            .values(missing)
            .on_conflict_do_nothing(constraint="training_run_once_key")
            .returning(training_run.c.id)
        ).all()
    )


def sweep(connection: Connection, *, days: int) -> None:
    """Forget runs that ended so long ago, but for the last one of each trigger: a schedule is asked whether its slot ran."""
    later = training_run.alias()
    superseded = sa.exists().where(
        later.c.model_id == training_run.c.model_id,
        later.c.trigger_kind == training_run.c.trigger_kind,
        later.c.id > training_run.c.id,
    )
    connection.execute(
        sa.delete(training_run).where(
            training_run.c.finished_at < sa.func.now() - sa.func.make_interval(0, 0, 0, days), superseded
        )
    )


def claim(connection: Connection) -> sa.Row[Any] | None:
    """Take a run that is due; a worker that dies with it leaves it to another, `ATTEMPTS` times."""
    waiting = (
        sa.select(training_run.c.id)
        .where(_is_due())
        .order_by(training_run.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    taken = (
        sa.update(training_run)
        .where(training_run.c.id == waiting.scalar_subquery())
        .values(
            state="running",
            attempts=training_run.c.attempts + 1,
            lease_until=_lease(),
            started_at=sa.func.coalesce(training_run.c.started_at, sa.func.now()),
        )
        .returning(training_run)
    )
    while (row := connection.execute(taken).one_or_none()) is not None:
        if row.attempts <= ATTEMPTS:
            return row
        end(connection, row, "failed", error=f"the training ended its worker {ATTEMPTS} times")
    return None


def renew(connection: Connection, run: sa.Row[Any]) -> bool:
    """Hold a claim for longer; False when another worker has it by now."""
    return connection.execute(sa.update(training_run).where(_still_mine(run)).values(lease_until=_lease())).rowcount > 0


def note(connection: Connection, run: sa.Row[Any], **values: Any) -> bool:
    """Keep what is known so far (`champion_version_id`, `challenger_version_id`, `document`); False when it is another's."""
    return connection.execute(sa.update(training_run).where(_still_mine(run)).values(**values)).rowcount > 0


def end(
    connection: Connection,
    run: sa.Row[Any],
    state: Ending,
    *,
    document: dict[str, Any] | None = None,
    error: str | None = None,
) -> bool:
    """End a run; False when another worker has it by now. A `document` replaces the one that was noted."""
    values: dict[str, Any] = {} if document is None else {"document": document}
    ended = connection.execute(
        sa.update(training_run)
        .where(_still_mine(run))
        .values(state=state, error=error, lease_until=None, finished_at=sa.func.now(), **values)
    )
    return ended.rowcount > 0


def due(connection: Connection) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(training_run).where(_is_due())).scalar_one()


def page(connection: Connection, model_id: int, limit: int) -> Sequence[sa.Row[Any]]:
    """The runs of a model, the last one first."""
    return connection.execute(
        _runs().where(training_run.c.model_id == model_id).order_by(training_run.c.id.desc()).limit(limit)
    ).all()


def get(connection: Connection, model_id: int, run_id: UUID) -> sa.Row[Any]:
    """Raises NotFound."""
    row = connection.execute(
        _runs().where(training_run.c.id == run_id, training_run.c.model_id == model_id)
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no training {run_id}")
    return row


def _runs() -> sa.Select[Any]:
    champion, challenger = model_version.alias("champion"), model_version.alias("challenger")
    return (
        sa.select(
            training_run,
            model.c.name.label("model"),
            champion.c.version.label("champion"),
            challenger.c.version.label("challenger"),
        )
        .join(model, model.c.id == training_run.c.model_id)
        .outerjoin(champion, champion.c.id == training_run.c.champion_version_id)
        .outerjoin(challenger, challenger.c.id == training_run.c.challenger_version_id)
    )


def _lease() -> Any:
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, LEASE_SECONDS)


def _still_mine(run: sa.Row[Any]) -> sa.ColumnElement[bool]:
    """Fenced by the attempt: each claim has another one, and a run is never queued again."""
    return sa.and_(
        training_run.c.id == run.id, training_run.c.state == "running", training_run.c.attempts == run.attempts
    )


def _is_due() -> sa.ColumnElement[bool]:
    return sa.or_(
        training_run.c.state == "queued",
        sa.and_(training_run.c.state == "running", training_run.c.lease_until < sa.func.now()),
    )
