"""One audit from its request to its result: what was stored is brought up to date, judged, kept, and moves alerts.

Runs in a worker. Whatever goes wrong is the run's error; an audit that was killed is run again by another worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

import logs
from db import audits, labels, models, profiles
from db.audits import Policy
from db.engine import transaction
from db.profiles import Reference
from errors import Conflict, ScorehouseError, Unavailable
from monitoring.accuracy import judged, metrics
from monitoring.alerting import observe
from monitoring.drift import drift
from monitoring.estimate import Calibration, agrees, estimated
from monitoring.intervals import Metric
from monitoring.labelled import count_dirty_days, no_outcomes
from monitoring.observations import accuracy_observations, check_observations, drift_observations
from monitoring.outcomes import Outcomes, from_json
from monitoring.outcomes import merge as merge_outcomes
from monitoring.profile import Profile, empty, from_bytes, merge, score_histogram
from monitoring.rollup import roll_up
from monitoring.schema import ProfileSchema
from registry.signature import Signature
from registry.store import ArtefactStore

_log = logs.get(__name__)

# A window with fewer rows than a verdict needs reaches back for more, but not for ever.
_ENOUGH_ROWS = 500
_LONGEST = timedelta(days=31)
# Labels of an older window have mostly come: what is still missing will hardly change the verdict.
_OLD_ENOUGH = timedelta(days=30)
# By these the versions of a model are compared with each other.
_COMPARED = ("accuracy", "f1", "rmse", "mae")


@dataclass(frozen=True)
class Found:
    """The document of an audit, its results one by one, and what the alerts are to hear of it."""

    document: dict[str, Any]
    results: list[dict[str, Any]]
    observations: list[Any]


def run_one(engine: Engine, store: ArtefactStore, cache: Path) -> str | None:
    """Run an audit that is due; returns what was found, or None when none is due."""
    with transaction(engine) as connection:
        run = audits.claim(connection)
    if run is None:
        return None
    name = f"{run.kind} of version {run.version_id} from {run.window_start:%Y-%m-%d %H:%M} to {run.window_end:%Y-%m-%d %H:%M}"
    try:
        found = _run(engine, store, cache, run)
    except Unavailable:
        raise  # its lease ends, and it is run again
    except Exception as exc:
        reason = str(exc) if isinstance(exc, ScorehouseError) else f"{type(exc).__name__}; the worker's log says more"
        with transaction(engine) as connection:
            audits.fail(connection, run, reason)
        unforeseen = not isinstance(exc, ScorehouseError)
        _log.warning("audit_failed", audit=str(run.id), kind=run.kind, reason=reason, exc_info=unforeseen)
        return f"{name}: failed"
    with transaction(engine) as connection:
        if audits.complete(connection, run, document=found.document, results=found.results) and run.alerting:
            observe(connection, run, found.observations)
    _log.info("audited", audit=str(run.id), kind=run.kind, version=run.version_id, status=found.document["status"])
    return f"{name}: {found.document['status']}"


def _run(engine: Engine, store: ArtefactStore, cache: Path, run: Any) -> Found:
    roll_up(engine)
    with transaction(engine) as connection:
        version = models.by_id(connection, run.version_id)
        reference = profiles.reference(connection, run.version_id)
        policy = audits.policy(connection, run.model_id)
    if reference is None or version.signature is None:
        raise Conflict(
            f"version {version.version} of {version.model} has no reference profile; register the version again"
        )
    base = {
        "model": version.model,
        "model_version": version.version,
        "window": {"start": _text(run.window_start), "end": _text(run.window_end)},
    }
    if run.kind == "drift":
        return _drift(engine, run, reference, base)
    if run.kind == "domain":
        from monitoring.domain import classify  # noqa: PLC0415 - fits a model, which the others do without

        document, results = classify(engine, store, cache, version, start=run.window_start, end=run.window_end)
        return Found(base | document, document["columns"], check_observations(results, run.window_start))
    return _accuracy(engine, run, reference, policy, base)


def _drift(engine: Engine, run: Any, reference: Reference, base: dict[str, Any]) -> Found:
    schema = ProfileSchema.model_validate(reference.schema)
    start, end, current = _window(engine, run, reference, schema)
    found = drift(schema, from_bytes(schema, reference.profile), current)
    columns = [column.model_dump(mode="json") for column in found.columns]
    document = base | {
        "window": {"start": _text(start), "end": _text(end)},
        "rows": current.rows,
        "status": found.status,
        "audited_at": _now(engine),
        "columns": columns,
    }
    return Found(document, columns, drift_observations(found.columns, run.window_start))


def _window(
    engine: Engine, run: Any, reference: Reference, schema: ProfileSchema
) -> tuple[datetime, datetime, Profile]:
    """What was scored in the window, and where it begins and ends; one with too few rows reaches back twice as far each time."""
    start, end = run.window_start, run.window_end
    nothing = empty(schema).to_bytes()
    while True:
        with transaction(engine) as connection:
            whole = profiles.whole(start, end, audits.now(connection))
            found = profiles.between(connection, run.version_id, reference.schema_digest, *whole)
        current = merge(from_bytes(schema, item) for item in [*found, nothing])
        longer = end - 2 * (end - start)
        if current.rows >= _ENOUGH_ROWS or end - longer > _LONGEST:
            return *whole, current
        start = longer


def _accuracy(engine: Engine, run: Any, reference: Reference, policy: Policy, base: dict[str, Any]) -> Found:
    """Labelled predictions are counted by the day, so what was scored is that of the same days."""
    start, end = profiles.days(run.window_start, run.window_end)
    with transaction(engine) as connection:
        versions = [row for row in models.versions(connection, run.model_id) if row.signature is not None]
        now: datetime = audits.now(connection)
    counted = {row.id: _counted(engine, run.model_id, row, start, end) for row in versions}
    outcomes, scored = counted[run.version_id]
    expected = {} if reference.outcomes is None else metrics(from_json(reference.outcomes))
    verdict = judged(
        outcomes,
        scored,
        {name: metric.value for name, metric in expected.items()},
        tolerance=policy.tolerance,
        old_enough=now - end > _OLD_ENOUGH,
    )
    guess = _estimated(engine, run.version_id, reference, start, end)
    shown = guess if agrees(guess, verdict.metrics) else {}
    document = (
        base
        | verdict.to_json()
        | {
            "window": {"start": _text(start), "end": _text(end)},
            "estimated": {name: metric.to_json() for name, metric in shown.items()},
            "estimate_retired": bool(guess) and not shown,
            "by_version": [
                _of_version(row.version, *counted[row.id]) for row in versions if counted[row.id][0].labelled
            ],
            "audited_at": _text(now),
        }
    )
    return Found(document, _as_results(document), accuracy_observations(document, policy.tolerance, run.window_start))


def _counted(engine: Engine, model_id: int, version: Any, start: datetime, end: datetime) -> tuple[Outcomes, int]:
    """The outcomes of one version's days in the window, and how many predictions it made."""
    output = Signature.model_validate(version.signature).output
    assert output is not None, "only an examined version is registered"
    count_dirty_days(engine, model_id, version.id, output)
    with transaction(engine) as connection:
        days = labels.counted(connection, version.id, start.date(), end.date())
        scored = profiles.scored(connection, version.id, start, end)
    outcomes = merge_outcomes([no_outcomes(output), *(from_json(day.outcomes) for day in days)])
    return outcomes, max(scored, outcomes.labelled)


def _of_version(version: str, outcomes: Outcomes, scored: int) -> dict[str, Any]:
    found = metrics(outcomes)
    return {
        "version": version,
        "scored": scored,
        "labelled": outcomes.labelled,
        "metrics": {name: found[name].value for name in _COMPARED if name in found},
    }


def _estimated(
    engine: Engine, version_id: int, reference: Reference, start: datetime, end: datetime
) -> dict[str, Metric]:
    """What the scores of the window say before labels come; empty where they cannot."""
    if reference.calibration is None:
        return {}
    schema = ProfileSchema.model_validate(reference.schema)
    with transaction(engine) as connection:
        found = profiles.between(connection, version_id, reference.schema_digest, start, end)
    if not found:
        return {}
    histogram = score_histogram(merge(from_bytes(schema, item) for item in found))
    return estimated(Calibration.from_json(reference.calibration), histogram)


def _as_results(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "statistic": "value", "value": metric["value"], "status": document["status"]}
        for name, metric in document["metrics"].items()
    ]


def _now(engine: Engine) -> str:
    with transaction(engine) as connection:
        return _text(audits.now(connection))


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
