"""A retraining from its request to its decision: collect, fit, compare, register, and promote if the policy says so.

Runs in a worker of the lane `training`. A run that is killed is taken up by another worker; once its challenger is
registered, the rest is only the decision. Whatever goes wrong is the run's error, and every decision keeps its figures.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

import logs
from db import models, trainings
from db.engine import transaction
from db.models import Version
from db.trainings import Policy
from errors import Conflict, Fenced, InvalidInput, ScorehouseError, Unavailable
from registry import runtime
from registry.signature import Signature
from registry.store import ArtefactStore
from settings import Settings
from training.contest import NotEnough, contest, material
from training.handing_in import House, handed_in
from training.lease import Lease
from training.promotion import promote
from training.stored_rows import reference_rows, stored_rows
from training.target import of_output
from training.versions import next_version

_log = logs.get(__name__)

SEED = 20130401
#: How long the workers may take to examine a challenger.
_EXAMINE_SECONDS = 900.0
_POLL_SECONDS = 0.5


def run_one(engine: Engine, store: ArtefactStore, settings: Settings) -> str | None:
    """Run a training that is due; returns what came of it, or None when none is due."""
    with transaction(engine) as connection:
        run = trainings.claim(connection)
    if run is None:
        return None
    with Lease(engine, run) as lease:
        try:
            told = _run(House(engine, store, settings), run, lease)
        except Unavailable:
            raise  # its lease ends, and it is run again
        except Fenced as exc:
            told = str(exc)
        except NotEnough as exc:
            told = _skipped(engine, run, str(exc))
        except Exception as exc:
            told = _failed(engine, run, exc)
    _log.info("training_ended", training=str(run.id), model_id=run.model_id, result=told)
    return f"training {run.id}: {told}"


def _run(house: House, run: Any, lease: Lease) -> str:
    with transaction(house.engine) as connection:
        champion = trainings.champion(connection, run.model_id)
        policy = trainings.policy(connection, run.model_id)
    if champion is None:
        raise NotEnough("the model has no production version; deploy one, then retrain")
    if run.challenger_version_id is None:
        run = _challenge(house, run, champion, policy, lease)
    _await_examination(house.engine, run.challenger_version_id, lease)
    return _decide(house.engine, run, policy)


def _challenge(house: House, run: Any, champion: Version, policy: Policy, lease: Lease) -> Any:
    """Fit a challenger, compare it with the champion, and hand it in to be registered; returns the run as it stands then."""
    signature = Signature.model_validate(champion.signature)
    assert signature.output is not None, "only an examined version is in production"
    target = of_output(champion.target_column or "label", signature.output)
    with transaction(house.engine) as connection:
        versions = models.versions(connection, run.model_id)
    parent = next(row for row in versions if row.id == champion.id)
    lineage = parent.declared
    stored = stored_rows(
        house.engine,
        run.model_id,
        [row.id for row in versions],
        signature,
        target,
        max_rows=policy.max_rows,
        max_age_days=policy.max_age_days,
    )
    if len(stored.rows) < policy.min_labelled_rows:
        raise NotEnough(
            f"{len(stored.rows):,} scored rows have a label, the policy of the model wants {policy.min_labelled_rows:,}; "
            "feed back more labels, or lower min_labelled_rows; rows whose inputs retention took do not count"
        )
    found = material(
        reference_rows(house.store.fetch(champion.reference_digest, house.cache), signature, target),
        stored,
        trained_through=_trained_through(lineage),
        champion_since=_microseconds(parent.created_at),
        seed=SEED,
    )
    lease.check()
    loaded = runtime.load(
        house.store.fetch(champion.digest, house.cache),
        format=champion.format,  # type: ignore[arg-type]  # checked when it was registered
        digest=champion.digest,
        mismatch_allowed=champion.mismatch_allowed,
    )
    recipe = policy.recipe or lineage.get("recipe")
    result = contest(loaded, signature, found, target, recipe=recipe, seed=SEED, progress=lambda *_: lease.check())
    lease.check()
    number = next_version([row.version for row in versions], champion.version)
    return handed_in(house, run, champion, found, result, target=target, recipe=recipe, version=number, seed=SEED)


def _await_examination(engine: Engine, version_id: int, lease: Lease) -> None:
    """Wait until a worker has examined the challenger as any version that is uploaded.

    Raises:
        InvalidInput: it was refused, or not examined in time.
    """
    deadline = time.monotonic() + _EXAMINE_SECONDS
    while True:
        lease.check()
        with transaction(engine) as connection:
            found = models.by_id(connection, version_id)
            error = models.error_of(connection, version_id)
        if found.state == "registered":
            return
        if found.state == "failed":
            raise InvalidInput(f"the challenger {found.version} could not be registered: {error}")
        if time.monotonic() > deadline:
            raise InvalidInput(
                f"the challenger {found.version} was not examined within {_EXAMINE_SECONDS:.0f} s: is a worker of the bulk lane up?"
            )
        time.sleep(_POLL_SECONDS)


def _decide(engine: Engine, run: Any, policy: Policy) -> str:
    """Promote or leave alone, and say why; one transaction, so that the record and the deed are the same."""
    document = dict(run.document)
    with transaction(engine) as connection:
        challenger = models.by_id(connection, run.challenger_version_id)
        current = trainings.champion(connection, run.model_id)
        found, deployment = document["comparison"], None
        verdict = found["verdict"]
        reason = _why_not(policy, found, current, run.champion_version_id)
        if reason is None:
            reason = f"the challenger is better: {found['reason']}"
            try:
                with connection.begin_nested():
                    why = f"training {run.id}: {reason}"
                    deployment = promote(connection, challenger.tenant, challenger.model, challenger.version, why=why)
            except Conflict as exc:
                reason = f"the challenger is better, but could not be deployed: {exc}"
        document["decision"] = {
            "promoted": deployment is not None,
            "verdict": verdict,
            "policy": policy.promotion,
            "deployment": None if deployment is None else str(deployment),
            "reason": reason,
        }
        if not trainings.end(connection, run, "succeeded", document=document):
            raise Fenced(f"the training {run.id} was taken over by another worker")
    return f"challenger {challenger.version} is {verdict}; {'promoted' if deployment else 'not promoted'}: {reason}"


def _why_not(policy: Policy, found: dict[str, Any], current: Version | None, champion_id: int) -> str | None:
    """Why the challenger is not promoted, or None."""
    if policy.promotion == "manual":
        return "the policy is manual: a person decides"
    if found["verdict"] != "better":
        return f"the challenger is {found['verdict']}: {found['reason']}"
    if current is None or current.id != champion_id:
        return "another version was put into production meanwhile"
    return None


def _skipped(engine: Engine, run: Any, reason: str) -> str:
    with transaction(engine) as connection:
        trainings.end(connection, run, "skipped", document={"decision": {"promoted": False, "reason": reason}})
    return f"skipped: {reason}"


def _failed(engine: Engine, run: Any, exc: Exception) -> str:
    foreseen = isinstance(exc, ScorehouseError)
    # A recipe is the user's own code: what it raises is for the user to read.
    reason = str(exc) if foreseen else f"{type(exc).__name__}: {exc}"[:1000].replace("\0", "")
    with transaction(engine) as connection:
        trainings.end(connection, run, "failed", error=reason)
    _log.warning("training_failed", training=str(run.id), reason=reason, exc_info=not foreseen)
    return f"failed: {reason}"


def _trained_through(lineage: dict[str, Any]) -> int | None:
    text = (lineage.get("split") or {}).get("trained_through")
    return None if text is None else _microseconds(datetime.fromisoformat(text))


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)
