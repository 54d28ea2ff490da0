"""Take a deployment further: warm-up, validation, replay, switch; each step can be taken again by another worker.

    warming       every live worker child holds the version (deployment.warm_up)
    validating    the golden rows go through the queue (deployment.validation), the last inputs are replayed if that is
                  wanted (deployment.replay), every live child still holds the version
    live          the switch, one transaction (db.deployment_steps.go_live)
    failed        any of these says no; production was not touched

What waits for others, waits for no longer than a permit is good for, and then lets go of the lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

import logs
from db import deployment_steps, workers
from db.deployment_steps import Open
from db.engine import transaction
from deployment import replay, validation
from deployment.gate import Gate
from deployment.replay import Beyond, Load
from deployment.warm_up import WarmUp, too_late, warm_up
from errors import ArtefactRefused, DeploymentRefused, Fenced, ScorehouseError, Unavailable
from settings import Settings

_log = logs.get(__name__)

# Heartbeats answer within half a second, a validation job is over in less.
_POLL_SECONDS = 0.1
# So often may a deployment end its worker, or lose it to somebody else's kill.
_ATTEMPTS = 5


@dataclass(frozen=True)
class Worker:
    """What a step needs of the worker child that takes it; `want` asks for a permit of a kind."""

    engine: Engine
    settings: Settings
    owner: str
    load: Load
    want: Callable[[str], None]


def run_one(worker: Worker) -> str | None:
    """Take an open deployment as far as a permit's time allows; returns what became of it, or None when none is due."""
    with transaction(worker.engine) as connection:
        open_ = deployment_steps.claim(connection, owner=worker.owner, lease_seconds=worker.settings.lease_seconds)
    if open_ is None:
        return None
    advance = _Advance(worker, open_)
    name = f"{open_.version.model}@{open_.version.version}"
    try:
        return f"{name}: {advance.run()}"
    except DeploymentRefused as exc:
        return f"{name}: {advance.fail(exc.reasons)}"
    except ArtefactRefused as exc:
        return f"{name}: {advance.fail([f'worker {worker.owner} refuses: {exc}'])}"
    except Fenced as exc:
        _log.info("deployment_fenced", deployment=str(open_.id), reason=str(exc))
        return f"{name}: {exc}"
    except Unavailable:
        raise  # its lease ends, and another worker goes on
    except Exception as exc:
        reason = str(exc) if isinstance(exc, ScorehouseError) else f"{type(exc).__name__}; the worker's log says more"
        told = advance.fail([f"it went wrong while it was {advance.open.state}: {reason}"])
        _log.exception("deployment_went_wrong", deployment=str(open_.id))
        return f"{name}: {told}"


class _Advance:
    """One deployment in this worker's hands; `open` is as it was last read or written."""

    def __init__(self, worker: Worker, open_: Open) -> None:
        self._worker = worker
        self._timeout = worker.settings.deploy_timeout_seconds
        self.open = open_

    def run(self) -> str:
        if self.open.attempts > _ATTEMPTS:
            raise DeploymentRefused(
                [f"{_ATTEMPTS} workers ended while it was {self.open.state}; their logs may say why"]
            )
        deadline = time.monotonic() + self._worker.settings.drain_seconds
        while True:
            further = self._step_or_wait(deadline)
            if self.open.state == "live":
                _log.info("deployed", deployment=str(self.open.id), version=self.open.version.version)
                return "live"
            if time.monotonic() >= deadline:
                break
            if not further:
                time.sleep(_POLL_SECONDS)
        with transaction(self._worker.engine) as connection:
            deployment_steps.release(connection, self.open)
        self._worker.want("deployment")
        return f"still {self.open.state}"

    def fail(self, reasons: list[str]) -> str:
        with transaction(self._worker.engine) as connection:
            failed = deployment_steps.fail(connection, self.open, reasons, by=self._worker.owner)
        if failed:
            _log.warning("deployment_failed", deployment=str(self.open.id), reasons=reasons)
        return f"failed: {'; '.join(reasons)}" if failed else "it is over"

    def _step_or_wait(self, deadline: float) -> bool:
        """Whether it got further; a database that is away for a moment is waited for."""
        try:
            return self._step()
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            return False

    def _step(self) -> bool:
        checks = self.open.checks
        if self.open.state == "warming":
            return self._warm()
        if "validation" not in checks:
            return self._submit()
        if not checks["validation"].get("over"):
            return self._validate()
        if self.open.gate is not None and not checks.get("replay", {}).get("over"):
            return self._replay(Gate.model_validate(self.open.gate))
        return self._switch()

    def _warm(self) -> bool:
        found = self._children()
        before = self.open.checks.get("warm_up", {})
        seen = {**found.as_json(), "over": found.complete}
        if found.complete:
            told = f"{len(found.warm)} workers hold it, and its golden rows came out in each"
            self._record(state="validating", checks={"warm_up": seen}, message=told)
        elif seen != before:
            self._record(checks={"warm_up": seen}, moved=seen["warm"] > before.get("warm", 0))
        return found.complete

    def _children(self) -> WarmUp:
        """Raises DeploymentRefused when one refuses it, or when all of them were waited for long enough."""
        with transaction(self._worker.engine) as connection:
            found = warm_up(workers.live(connection), self.open.id)
            silent = deployment_steps.silent(connection, self.open)
        if not found.complete and silent > self._timeout:
            raise too_late(found, self._timeout)
        return found

    def _submit(self) -> bool:
        with transaction(self._worker.engine) as connection:
            submitted = validation.submit(connection, self.open.version, self.open.id)
            checks = {"validation": {**submitted, "over": submitted["job"] is None}}
            told = submitted.get("note", f"{submitted['rows']} golden rows go through the queue")
            recorded = deployment_steps.record(
                connection,
                self.open,
                checks=checks,
                message=told,
                by=self._worker.owner,
                lease_seconds=self._worker.settings.lease_seconds,
            )
        self.open = recorded
        self._worker.want("interactive")
        return True

    def _validate(self) -> bool:
        kept = self.open.checks["validation"]
        with transaction(self._worker.engine) as connection:
            over = validation.judge(connection, self.open.version, UUID(kept["job"]))
            silent = deployment_steps.silent(connection, self.open)
        if over:
            told = f"{kept['rows']} golden rows came back from the queue as expected"
            self._record(checks={"validation": {**kept, "over": True}}, message=told)
        elif silent > self._timeout:
            raise DeploymentRefused(
                [
                    f"the validation job {kept['job']} was not scored within {self._timeout:g} s; "
                    "look whether a worker serves the interactive lane (`scorehouse doctor`)"
                ]
            )
        return over

    def _replay(self, gate: Gate) -> bool:
        worker = self._worker
        try:
            found = replay.next_step(worker.engine, worker.load, self.open, gate, worker.settings.max_cell_chars)
        except Beyond as exc:
            self._record(checks={"replay": {**exc.check, "over": True}})
            raise
        told = found.check.get("note", f"{found.check['rows']:,} rows replayed, within the limits")
        self._record(checks={"replay": {**found.check, "over": found.over}}, message=told if found.over else None)
        return True

    def _switch(self) -> bool:
        if not self._children().complete:  # some worker was started in the meantime
            return False
        with transaction(self._worker.engine) as connection:
            deployment_steps.go_live(connection, self.open, by=self._worker.owner)
        self.open = replace(self.open, state="live")
        return True

    def _record(self, **what: Any) -> None:
        with transaction(self._worker.engine) as connection:
            self.open = deployment_steps.record(
                connection,
                self.open,
                by=self._worker.owner,
                lease_seconds=self._worker.settings.lease_seconds,
                **what,
            )
