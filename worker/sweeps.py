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
from monitoring import alerting, rollup
from monitoring.exporter import ROLL_UP
from permits import publisher
from settings import Settings
from worker import host

_log = logs.get(__name__)

# A permit drains its lane, so there is no use in more of them than there are children to take one.
_MOST_PERMITS = 16
# Beat may have been away for so long; audits of older windows would tell nobody anything.
_CATCH_UP_HOURS = 48


def kick(engine: Engine) -> str:
    """Publish permits for the work that waits: this is what makes Redis forgettable.

    From the publisher's thread: a broker that hangs must not keep this child from what it scores.
    """
    counts = chunks.claimable(engine)
    with transaction(engine) as connection:
        counts["register"] = models.registrations_due(connection)
        counts["audit"] = audits.due(connection)
        counts["train"] = trainings.due(connection)
        counts["deployment"] = deployment_steps.due(connection)
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
    """Make the partitions of the coming days, drop those past retention, forget old heartbeats and runs."""
    with transaction(engine) as connection:
        slot = periodic.this_hour(connection)
        if not periodic.begin(connection, "housekeeping", slot):
            return "done already by another beat"
    with transaction(engine) as connection:
        made = predictions.ensure_partitions(connection)
        removed = retention.sweep(connection, days=settings.retention_days)
        audits.sweep(connection, days=settings.retention_days)
        tokens.sweep(connection)
        trail.sweep(connection, days=settings.trail_days)
        workers.sweep(connection)
        periodic.sweep(connection)
        periodic.end(connection, "housekeeping", slot)
        tenants = usage.tenants(connection)
    for tenant in tenants:  # each in a transaction of its own, because its submissions wait meanwhile
        with transaction(engine) as connection:
            usage.recount_open(connection, tenant)
    rollup.make_days(engine)
    return f"{len(made)} partitions made, {removed} jobs removed"
