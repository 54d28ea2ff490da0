"""Switch clients from one stack to the other, go back, and say how things stand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from deployment.stacks import history, nginx
from deployment.stacks.checks import Check, CheckFailed, examine, live, ready, timed
from deployment.stacks.config import NAMES, Config, Name
from deployment.stacks.history import Entry, Kind
from deployment.stacks.nginx import NginxRefused
from deployment.stacks.probe import ask
from embedded.lock import FolderLock
from errors import Conflict, InvalidInput, Unavailable

_ARRIVAL_SECONDS = 15.0
# The first answers after a reload may still come from an nginx process that is about to leave.
_ANSWERS_IN_A_ROW = 5
_PAUSE_SECONDS = 0.05

Watch = Callable[[Check], None]


def switch(
    config: Config, to: Name, *, who: str, why: str | None, token: str | None, watch: Watch = lambda _: None
) -> Entry:
    """Examine a stack, point nginx to it, and see that clients reach it; the other one stays as it is.

    Whatever fails, nginx goes on as before, and the entry that is returned and kept says why.

    Raises:
        Conflict: another switch is under way.
    """
    with _alone(config):
        return _attempt(config, to, kind="switch", who=who, why=why, token=token, watch=watch)


def rollback(config: Config, *, who: str, why: str | None, watch: Watch = lambda _: None) -> Entry:
    """Undo the last switch at once: the stack before it must live and be ready, but is not validated again.

    Raises:
        Conflict: another switch is under way, or there is none to undo.
    """
    with _alone(config):
        last = history.last_switched(config.history)
        if last is None or last["from"] is None:
            raise Conflict("there is no switch to undo: name the stack with `scorehouse stacks switch`")
        if last["kind"] == "rollback" or last["to"] != nginx.active(config):
            raise Conflict(
                f"the last switch was undone already, or {config.include.name} was changed by hand: "
                "name the stack with `scorehouse stacks switch`"
            )
        return _attempt(config, last["from"], kind="rollback", who=who, why=why, token=None, watch=watch)


def status(config: Config) -> dict[str, Any]:
    """How things stand: the stack that nginx was told, the one that answers through it, and the state of both.

    `ok` is whether the two are the same, and that stack is ready.
    """
    active, answering = nginx.active(config), _answering(config)
    stacks = {name: _state(config, name) for name in NAMES}
    ok = active is not None and stacks[active]["ready"] and answering == stacks[active]["release"]
    return {
        "ok": ok,
        "active": active,
        "answering": answering,
        "draining": nginx.draining(config),
        "stacks": stacks,
        "last": history.last_switched(config.history),
    }


def _attempt(
    config: Config, to: Name, *, kind: Kind, who: str, why: str | None, token: str | None, watch: Watch
) -> Entry:
    began, before = time.monotonic(), nginx.active(config)
    checks: list[Check] = []
    for check in _steps(config, to, before, token, quick=kind == "rollback"):
        watch(check)
        checks.append(check)
        if not check.ok:
            break
    entry = Entry(
        at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        who=who,
        kind=kind,
        from_stack=before,
        to_stack=to,
        why=why,
        outcome="switched" if checks[-1].ok else "refused",
        seconds=round(time.monotonic() - began, 3),
        checks=checks,
    )
    history.append(config.history, entry)
    return entry


def _steps(config: Config, to: Name, before: Name | None, token: str | None, *, quick: bool) -> Iterator[Check]:
    yield from examine(config, to, token, quick=quick)
    yield timed("nginx", lambda: _point(config, to))
    yield timed("arrival", lambda: _arrive(config, to, before))


def _point(config: Config, to: Name) -> str:
    try:
        nginx.point_to(config, to)
    except NginxRefused as exc:
        raise CheckFailed(f"nginx goes on as before: {exc}") from exc
    return f"{config.include} names {to}"


def _arrive(config: Config, to: Name, before: Name | None) -> str:
    """Ask through nginx until only the new stack answers; point nginx back if it does not."""
    try:
        release = live(config, to)
        _wait_for(config, release)
    except (CheckFailed, Unavailable) as exc:
        raise CheckFailed(f"{exc}; {_point_back(config, to, before)}") from exc
    return f"{config.front} is answered by {release}"


def _wait_for(config: Config, release: str) -> None:
    deadline, in_a_row = time.monotonic() + _ARRIVAL_SECONDS, 0
    while in_a_row < _ANSWERS_IN_A_ROW:
        answering = _answering(config)
        in_a_row = in_a_row + 1 if answering == release else 0
        if in_a_row == 0:
            if time.monotonic() > deadline:
                raise CheckFailed(
                    f"{config.front} was not answered by {release} within {_ARRIVAL_SECONDS:.0f} s, but: {answering} (see "
                    "the error log of nginx)"
                )
            time.sleep(_PAUSE_SECONDS)


def _point_back(config: Config, to: Name, before: Name | None) -> str:
    if before is None or before == to:
        return f"nginx still names {to}: there is no other stack to go back to"
    try:
        nginx.point_to(config, before)
    except NginxRefused as exc:
        return f"and nginx cannot be pointed back to {before}: {exc}"
    return f"nginx was pointed back to {before}"


def _answering(config: Config) -> str:
    """The release that clients reach, or why they reach none."""
    try:
        answer = ask(f"{config.front}/health/live")
    except Unavailable as exc:
        return str(exc)
    return answer.release or f"no stack, {answer.told}"


def _state(config: Config, name: Name) -> dict[str, Any]:
    state: dict[str, Any] = {"url": config.url_of(name), "release": None, "ready": False, "detail": ""}
    try:
        state["release"] = live(config, name)
        return {**state, "detail": ready(config, name, seconds=0.0), "ready": True}
    except (CheckFailed, Unavailable) as exc:
        return {**state, "detail": str(exc)}


@contextmanager
def _alone(config: Config) -> Iterator[None]:
    if not config.include.parent.is_dir():
        raise InvalidInput(f"the folder {config.include.parent} of the include file does not exist: make it first")
    lock = FolderLock(config.lock)
    if not lock.acquire():
        raise Conflict("another switch is under way: see `scorehouse stacks status` when it has ended")
    try:
        yield
    finally:
        lock.release()
