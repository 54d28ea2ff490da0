"""What beat's ticks do: permits for claimable work, rescue of lost claims, and the removal of what is left behind."""

from __future__ import annotations

from sqlalchemy import Engine

import logs
from db import (
    audits,
    chunks,
    deployment_steps,
    jobs,
    models,
    periodic,
    predictions,
    retention,
    tokens,
    trail,
    trainings,
    usage,
    workers,
)
from db.engine import transaction
from errors import Unavailable
from monitoring import alerting, rollup
from monitoring.exporter import ROLL_UP
from permits import publisher
from registry.store import ArtefactStore
from settings import Settings
from worker import host

_log = logs.get(__name__)

# A permit drains its lane, so there is no use in more of them than there are children to take one.
_MOST_PERMITS = 16
# Beat may have been away for so long; audits of older windows would tell nobody anything.
_CATCH_UP_HOURS = 48
# An artefact that is being received is written to all the time.
_UNFINISHED_SECONDS = 24 * 3600.0


def waiting(engine: Engine) -> dict[str, int]:
    """How much of each kind of work waits, by the names of `permits.PERMITS`."""
    counts = chunks.claimable(engine)
    with transaction(engine) as connection:
        counts["register"] = models.registrations_due(connection)
        counts["audit"] = audits.due(connection)
        counts["train"] = trainings.due(connection)
        counts["deployment"] = deployment_steps.due(connection)
    return counts


def kick(engine: Engine) -> str:
    """Publish permits for the work that waits: this is what makes Redis forgettable.

    From the publisher's thread: a broker that hangs must not keep this child from what it scores.
    """
    counts = waiting(engine)
    with transaction(engine) as connection:
        children = {
            lane: sum(lane in row.lanes for row in workers.live(connection)) for lane in ("interactive", "bulk")
        }
    for kind, count in counts.items():
        if count:
            publisher().want(kind, min(count, children.get(kind, 1) or 1, _MOST_PERMITS))
    return ", ".join(f"{kind}: {count} waiting" for kind, count in counts.items() if count) or "nothing waits"


def rescue(engine: Engine, settings: Settings) -> str:
    """Take back the claims of dead workers and of those whose lease is over."""
    dead = [owner for owner in chunks.running_owners(engine, f"{host.place()}:") if host.is_dead(owner)]
    count = chunks.rescue(engine, poison_attempts=settings.poison_attempts, dead_owners=dead)
    if count:
        _log.warning("rescued", chunks=count, dead_owners=dead)
    return f"{count} rescued"


def request_audits(engine: Engine) -> str:
    """Ask for the audits whose hour has come, and for those that an outage left out."""
    with transaction(engine) as connection:
        return f"{audits.request_due(connection, catch_up_hours=_CATCH_UP_HOURS)} audits asked for"


def request_trainings(engine: Engine) -> str:
    """Ask for the trainings whose day has come."""
    with transaction(engine) as connection:
        return f"{trainings.request_due(connection)} trainings asked for"


def roll_up(engine: Engine, settings: Settings) -> str:
    """Tell people of alerts that nobody was told of, and merge what finishes have counted."""
    told = alerting.deliver(engine, settings)
    count = rollup.roll_up(engine)
    with transaction(engine) as connection:
        slot = periodic.this_hour(connection)
        periodic.begin(connection, ROLL_UP, slot)
        periodic.end(connection, ROLL_UP, slot)
    return f"{count} entries rolled up, {told} alerts told of"


def sweep(engine: Engine) -> str:
    """Remove uploads that were abandoned with their API process."""
    with transaction(engine) as connection:
        left = jobs.abandoned(connection)
    for job_id in left:
        with transaction(engine) as connection:
            jobs.discard(connection, job_id)
        _log.info("upload_discarded", job=str(job_id))
    return f"{len(left)} abandoned uploads removed"


def housekeeping(engine: Engine, settings: Settings) -> str:
    """Make the partitions of the coming days, remove what is past its retention, forget old heartbeats and runs."""
    with transaction(engine) as connection:
        slot = periodic.this_hour(connection)
        if not periodic.begin(connection, "housekeeping", slot):
            return "done already by another beat"
    made = _make_days(engine)
    removed = retention.remove_jobs(engine, days=settings.retention_days)
    dropped = retention.drop_days(engine, days=settings.retention_days)
    emptied = 0
    if settings.payload_retention_days is not None:
        emptied = retention.remove_inputs(engine, days=settings.payload_retention_days)
    with transaction(engine) as connection:
        retention.sweep(connection, days=settings.retention_days, trail_days=settings.trail_days)
        audits.sweep(connection, days=settings.retention_days)
        tokens.sweep(connection)
        trail.sweep(connection, days=settings.trail_days)
        workers.sweep(connection)
        periodic.sweep(connection)
        tenants = usage.tenants(connection)
    for tenant in tenants:  # each in a transaction of its own, because its submissions wait meanwhile
        with transaction(engine) as connection:
            usage.recount_open(connection, tenant)
    rollup.make_days(engine)
    left = _sweep_artefacts(settings)
    with transaction(engine) as connection:
        periodic.end(connection, "housekeeping", slot)
    return f"{len(made)} partitions made, {len(dropped)} dropped, {removed} jobs removed, inputs of {emptied} removed, {left} unfinished artefacts removed"


def _make_days(engine: Engine) -> list[str]:
    """The partitions of a week; while a backup reads the table, or something else for long, a later hour makes them."""
    try:
        with transaction(engine) as connection:
            retention.do_not_queue(connection)
            return predictions.ensure_partitions(connection)
    except Unavailable as exc:
        _log.warning("partitions_postponed", reason=str(exc))
        return []


def _sweep_artefacts(settings: Settings) -> int:
    """What uploads left unfinished; a worker that may only read the store leaves it to another."""
    try:
        return ArtefactStore(settings.resolved_artefact_url()).sweep(_UNFINISHED_SECONDS)
    except OSError as exc:
        _log.info("artefacts_not_swept", reason=str(exc))
        return 0
