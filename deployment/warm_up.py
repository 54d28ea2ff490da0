"""Warm-up: every live worker child has loaded the version and its golden rows came out, or says why not.

The children do that by themselves (`worker.heartbeat`); here their answers are counted. A child that died no longer
counts, one that was started in the meantime does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from errors import DeploymentRefused

_NO_ANSWER = {"state": "loading"}  # it has not seen the deployment yet, or is of a release before there were any


@dataclass(frozen=True)
class WarmUp:
    """The live worker children, by their answers."""

    warm: list[str]
    waiting: list[str]

    @property
    def complete(self) -> bool:
        return bool(self.warm) and not self.waiting

    def as_json(self) -> dict[str, Any]:
        return {"workers": len(self.warm) + len(self.waiting), "warm": len(self.warm), "waiting": self.waiting}


def warm_up(children: Sequence[Any], deployment_id: UUID) -> WarmUp:
    """What the live children (rows of `worker_heartbeat`) answer to a deployment.

    Raises:
        DeploymentRefused: some refuse the version; each is named with its reason.
    """
    answers = {child.owner: child.deployments.get(str(deployment_id), _NO_ANSWER) for child in children}
    refusals = [
        f"worker {owner} refuses: {answer['reason']}"
        for owner, answer in answers.items()
        if answer["state"] == "refused"
    ]
    if refusals:
        raise DeploymentRefused(refusals)
    warm = [owner for owner, answer in answers.items() if answer["state"] == "warm"]
    return WarmUp(warm, [owner for owner in answers if owner not in warm])


def too_late(found: WarmUp, seconds: float) -> DeploymentRefused:
    """That the children were given long enough."""
    if not found.waiting:
        return DeploymentRefused([f"no worker lived for {seconds:g} s; start one with `scorehouse worker`"])
    return DeploymentRefused([f"worker {owner} has not loaded it within {seconds:g} s" for owner in found.waiting])
