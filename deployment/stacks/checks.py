"""What a stack must show before clients reach it: it lives, is ready without the other one, and scores.

A worker holds a model version only when it has scored the golden rows with its own libraries, so `ready` covers what the
workers of a release compute. The validations go the whole way of a request, but workers of both stacks serve one queue:
whichever is free scores them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from deployment.stacks.config import Config, Name, Validation
from deployment.stacks.probe import Answer, ask
from errors import Unavailable

_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Check:
    """One step of a switch and how it went."""

    name: str
    ok: bool
    detail: str
    seconds: float


class CheckFailed(Exception):
    """A check's outcome: `str()` of it is what is wrong."""


def timed(name: str, run: Callable[[], str]) -> Check:
    """Run a check, which returns what it found or raises CheckFailed or Unavailable."""
    began = time.monotonic()
    try:
        ok, detail = True, run()
    except (CheckFailed, Unavailable) as exc:
        ok, detail = False, str(exc)
    return Check(name, ok, detail, round(time.monotonic() - began, 3))


def examine(config: Config, name: Name, token: str | None, *, quick: bool = False) -> Iterator[Check]:
    """The checks of a stack in turn; whoever takes them stops at the first that is not ok.

    Args:
        token: for the validations; None leaves the routes that need one out.
        quick: for a rollback: the stack is known, so do not wait for it and leave the validations out.
    """
    seconds = 0.0 if quick else config.ready_seconds
    yield timed("live", lambda: live(config, name, seconds=seconds))
    yield timed("ready", lambda: ready(config, name, seconds=seconds))
    if quick or token is None:
        return
    yield timed("models", lambda: _models(config.url_of(name), token))
    for number, validation in enumerate(config.validations, 1):
        yield timed(f"validation {number}", lambda each=validation: _validation(config.url_of(name), token, each))  # type: ignore[misc]  # mypy cannot infer a default


def live(config: Config, name: Name, *, seconds: float = 0.0) -> str:
    """The release that answers at the URL of a stack, as long as it is that stack; waits for one that is starting."""
    url, deadline = config.url_of(name), time.monotonic() + seconds
    while True:
        try:
            answer = ask(f"{url}/health/live")
            break
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
    release = answer.release or ""
    if answer.status != 200 or not release:
        raise CheckFailed(f"{url} is no API of this release or later: /health/live answers {answer.told}")
    if release.partition("+")[2] != name:
        raise CheckFailed(
            f"{url} says that it is {release}, not {name}: start its processes with SCOREHOUSE_STACK_NAME={name}, "
            "or mend the URL in the stacks file"
        )
    return release


def ready(config: Config, name: Name, *, seconds: float) -> str:
    """Wait until the stack could do without the other: its database, its own workers for each lane, their models."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask(f"{config.url_of(name)}/health?release=self")
        missing = _missing(answer)
        if not missing:
            return f"{answer.body['workers']} worker processes, models {', '.join(answer.body['models']) or 'none'}"
        if time.monotonic() >= deadline:
            raise CheckFailed(f"{name} is not ready: {'; '.join(missing)}")
        time.sleep(_PAUSE_SECONDS)


def _missing(answer: Answer) -> list[str]:
    health = answer.body if isinstance(answer.body, dict) else {}
    if "lanes" not in health:
        return [f"/health answers {answer.told}"]
    if health["database"] != "ok":
        return [health["database"]]
    lanes = [lane for lane, workers in health["lanes"].items() if not workers]
    models = [f"{model}: {state}" for model, state in health["models"].items() if state != "ready"]
    unnamed = health.get("models_missing", 0) - len(models)  # of tenants whose models we are not shown
    return [
        *(f"none of its workers serves the lane {lane}: start `scorehouse worker --lane {lane}`" for lane in lanes),
        *models,
        *([f"none of its workers holds {unnamed} other models in production"] if unnamed > 0 else []),
    ]


def _models(url: str, token: str) -> str:
    answer = ask(f"{url}/v1/models", token=token)
    if answer.status != 200:
        raise CheckFailed(f"GET /v1/models answers {answer.told}")
    return f"{len(answer.body['models'])} models"


def _validation(url: str, token: str, validation: Validation) -> str:
    answer = ask(f"{url}/predict?model={validation.model}", token=token, record=validation.record)
    if answer.status != 200:
        raise CheckFailed(f"POST /predict?model={validation.model} answers {answer.told}")
    for name in ("prediction", "probability"):
        wanted, found = getattr(validation, name), answer.body.get(name)
        if wanted is not None and not _equal(wanted, found):
            raise CheckFailed(f"{validation.model} answers the {name} {found!r} instead of {wanted!r}")
    return f"{validation.model} {answer.body['model_version']} answers {answer.body['prediction']!r}"


def _equal(wanted: Any, found: Any) -> bool:
    """As scores are equal: numbers up to the rounding of another batch size, everything else exactly."""
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(_equal, wanted, found))
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return math.isclose(wanted, found, rel_tol=1e-9, abs_tol=1e-9)
    return bool(wanted == found)
