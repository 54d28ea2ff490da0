"""When a finding becomes an alert, and when it is over: one state machine per (version, column, check).

    ok ──> pending ──> firing ──> acknowledged | suppressed ──> resolved ──> pending …

An audit judges each window alone, and a score that sits on its threshold is judged differently from window to window.
So an alert fires when 2 of the last 3 windows are bad, and is over after 3 clear ones: judged "ok" and below 0.8 of
the threshold that was crossed. A column that is gone, or full of nulls or of wrong types, is critical at once. Windows
that could not be judged (too few rows, advisory, provisional) are passed over: the state stays as it was.

An audit may run again for a window, and windows may come in any order. The state therefore holds the last 3 windows
themselves, by their start: a window that comes again replaces its own observation, one older than all 3 is ignored.

Nothing here reads a clock or a database, and no ML library is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from errors import Conflict, InvalidInput

State = Literal["ok", "pending", "firing", "acknowledged", "suppressed", "resolved"]
Severity = Literal["warn", "critical"]

WINDOWS = 3
BAD_TO_FIRE = 2
#: A window is clear below this share of its warn threshold.
CLEAR_BELOW = 0.8
#: Checks that fire on one critical window: rows are unusable now, and no chance makes half a column null.
IMMEDIATE = frozenset({"null_rate_difference", "type_error_rate_difference", "missing"})
STANDING = frozenset({"firing", "acknowledged", "suppressed"})


@dataclass(frozen=True)
class Observation:
    """What one audit of one window says about one check.

    `status` is "ok", "warn" or "critical"; any other one says that the window could not be judged. `value` grows as
    things get worse and is harmless at 0: of an accuracy hand in how far it fell below its reference, of an AUC how
    far it is above 0.5. `column` is "" for the data set as a whole.
    """

    status: str
    value: float | None
    warn: float | None
    critical: float | None
    check: str
    window_start: datetime
    column: str = ""

    @property
    def judged(self) -> bool:
        return self.status in ("ok", "warn", "critical")

    @property
    def clear(self) -> bool:
        if self.status != "ok":
            return False
        return self.value is None or self.warn is None or self.value < CLEAR_BELOW * self.warn

    @property
    def breaks_rows(self) -> bool:
        return self.status == "critical" and self.check in IMMEDIATE


class Window(BaseModel):
    """One of the last windows: how it was judged, and whether it counts as clear."""

    model_config = ConfigDict(frozen=True)

    start: AwareDatetime
    status: str
    clear: bool

    @property
    def bad(self) -> bool:
        return self.status in ("warn", "critical")


class AlertState(BaseModel):
    """All that the next step needs; `model_dump(mode="json")` and `model_validate` store and restore it.

    `severity` is the worst since the alert was pending, None when nothing stands. `recent` holds the last 3 windows
    that were judged, oldest first, and `clear_count` says how many of them, counted from the newest, are clear.
    `since` is when the state began. `value`, `warn` and `critical` are those of the newest window.
    """

    model_config = ConfigDict(frozen=True)

    state: State = "ok"
    severity: Severity | None = None
    recent: tuple[Window, ...] = ()
    clear_count: int = 0
    since: AwareDatetime | None = None
    suppressed_until: AwareDatetime | None = None
    acknowledged_by: str | None = None
    value: float | None = None
    warn: float | None = None
    critical: float | None = None


class Transition(BaseModel):
    """A change of the state, or of a firing alert's severity; `window_start` is that of the newest window."""

    model_config = ConfigDict(frozen=True)

    previous: State
    state: State
    severity: Severity | None
    reason: str
    at: AwareDatetime
    by: str | None = None
    window_start: AwareDatetime | None = None
    value: float | None = None
    warn: float | None = None
    critical: float | None = None

    @property
    def notifies(self) -> bool:
        """Whether people are told of it."""
        return self.state in ("firing", "resolved")


def step(alert: AlertState, observation: Observation, now: datetime) -> tuple[AlertState, Transition | None]:
    """The state after one more observation, and the change if there is one.

    Observing the same thing twice changes nothing the second time, unless a suppression ended in between. `now` is
    the time of the audit (aware), not of the window.
    """
    alert = _observed(alert, observation)
    if alert.state in STANDING:
        return _step_standing(alert, now)
    return _step_quiet(alert, observation, now)


def acknowledge(alert: AlertState, by: str, now: datetime) -> tuple[AlertState, Transition]:
    """Someone looks after it: quiet until it resolves, or until it goes from warn to critical.

    Raises:
        Conflict: the alert does not stand, or is acknowledged already.
    """
    if alert.state == "acknowledged":
        raise Conflict(f"the alert is acknowledged already, by {alert.acknowledged_by}")
    if alert.state not in STANDING:
        raise Conflict(f"the alert is {alert.state}: there is nothing to acknowledge")
    return _changed(alert, "acknowledged", now, f"acknowledged by {by}", by=by, acknowledged_by=by)


def suppress(alert: AlertState, until: datetime, by: str, now: datetime) -> tuple[AlertState, Transition]:
    """Quiet until a time, whatever its severity does; it may resolve meanwhile.

    When the time is over, the next observation fires it again unless its newest window is clear.

    Raises:
        Conflict: the alert does not stand.
        InvalidInput: `until` is not in the future.
    """
    if alert.state not in STANDING:
        raise Conflict(f"the alert is {alert.state}: there is nothing to suppress")
    if until <= now:
        raise InvalidInput(f"an alert can only be suppressed until a time in the future, not {until.isoformat()}")
    reason = f"suppressed by {by} until {until.isoformat()}"
    return _changed(alert, "suppressed", now, reason, by=by, suppressed_until=until)


def _observed(alert: AlertState, observation: Observation) -> AlertState:
    """With the observation among the windows, if it belongs there."""
    start = observation.window_start
    others = [window for window in alert.recent if window.start != start]
    if not observation.judged and len(others) == len(alert.recent):
        return alert
    # A window that was judged and no longer can be keeps its place: else an older one would come back.
    window = Window(start=start, status=observation.status, clear=observation.clear)
    recent = tuple(sorted([*others, window], key=lambda one: one.start)[-WINDOWS:])
    update: dict[str, Any] = {"recent": recent, "clear_count": _clear_count(recent)}
    if observation.judged and recent[-1].start == start:
        update |= {"value": observation.value, "warn": observation.warn, "critical": observation.critical}
    return alert.model_copy(update=update)


def _clear_count(recent: Sequence[Window]) -> int:
    count = 0
    for window in reversed(recent):
        if not window.clear:
            break
        count += 1
    return count


def _step_quiet(alert: AlertState, observation: Observation, now: datetime) -> tuple[AlertState, Transition | None]:
    bad = sum(window.bad for window in alert.recent)
    kept = any(window.start == observation.window_start for window in alert.recent)
    if observation.breaks_rows and kept:
        return _changed(alert, "firing", now, f"{observation.check} is critical", severity="critical")
    if bad >= BAD_TO_FIRE:
        reason = f"{bad} of the last {len(alert.recent)} windows are bad"
        return _changed(alert, "firing", now, reason, severity=_worst(alert))
    if bad:
        if alert.state == "pending":
            return alert.model_copy(update={"severity": _worst(alert)}), None
        return _changed(alert, "pending", now, "a window is bad", severity=_worst(alert))
    if alert.state == "pending":
        return _changed(alert, "ok", now, "no other window was bad", severity=None)
    return alert, None


def _step_standing(alert: AlertState, now: datetime) -> tuple[AlertState, Transition | None]:
    if alert.clear_count >= WINDOWS:
        return _changed(alert, "resolved", now, f"{alert.clear_count} windows are clear", severity=None)
    severity = "critical" if alert.severity == "critical" else _worst(alert) or alert.severity
    if alert.state == "suppressed":
        assert alert.suppressed_until is not None
        if now >= alert.suppressed_until and not alert.recent[-1].clear:
            return _changed(alert, "firing", now, "it stands after its suppression ended", severity=severity)
    elif severity != alert.severity:
        return _changed(alert, "firing", now, "its severity went from warn to critical", severity=severity)
    return alert.model_copy(update={"severity": severity}), None


def _changed(
    alert: AlertState, state: State, now: datetime, reason: str, *, by: str | None = None, **update: Any
) -> tuple[AlertState, Transition]:
    """The alert in its next state, which nobody has acknowledged or suppressed unless `update` says so."""
    fresh = {"state": state, "since": now, "acknowledged_by": None, "suppressed_until": None}
    changed = alert.model_copy(update=fresh | update)
    return changed, Transition(
        previous=alert.state,
        state=state,
        severity=changed.severity or alert.severity,
        reason=reason,
        at=now,
        by=by,
        window_start=alert.recent[-1].start if alert.recent else None,
        value=alert.value,
        warn=alert.warn,
        critical=alert.critical,
    )


def _worst(alert: AlertState) -> Severity | None:
    statuses = {window.status for window in alert.recent}
    return "critical" if "critical" in statuses else "warn" if "warn" in statuses else None
