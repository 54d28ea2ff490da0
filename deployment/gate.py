"""The gate of a deployment: how far the version may be from production on the inputs that were sent last."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MOST_ROWS = 1_000_000


class Gate(BaseModel):
    """Replay the last inputs through the version and through production, and refuse the version beyond these limits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replay_rows: int = Field(ge=1, le=MOST_ROWS, description="how many of the last rows are scored by both")
    max_flipped: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of the rows whose class differs; for regression the mean absolute difference, in "
        "standard deviations of production's predictions",
    )
    max_psi: float = Field(0.2, ge=0, description="population stability index of the scores")
    max_slowdown: float = Field(2.0, gt=0, description="times the seconds that production takes")


def beyond(gate: Gate, figures: dict[str, Any], production: str) -> list[str]:
    """What is beyond a limit, in sentences; empty when nothing is.

    Args:
        figures: as `deployment.comparison.Comparison.figures` gives them.
        production: the version that was compared with.
    """
    found: list[str] = []
    rows = f"{figures['compared'] + figures['not_taken']:,} replayed rows"
    flipped, difference = figures.get("flipped"), figures.get("difference")
    if flipped is not None and flipped > gate.max_flipped:
        found.append(
            f"{flipped:.2%} of {rows} get another class than from {production}, at most {gate.max_flipped:.2%} may"
        )
    if difference is not None and difference > gate.max_flipped:
        found.append(
            f"over {rows} the predictions differ from those of {production} by {difference:.3g} standard deviations, "
            f"at most {gate.max_flipped:.3g} are allowed"
        )
    if found and figures["not_taken"]:
        found[-1] += f"; {figures['not_taken']:,} of them it cannot take: {figures['examples'][0]}"
    if figures["psi"] is not None and figures["psi"] > gate.max_psi:
        found.append(f"the scores of {rows} have a PSI of {figures['psi']:.3f}, at most {gate.max_psi:.3f} is allowed")
    if figures["slowdown"] is not None and figures["slowdown"] > gate.max_slowdown:
        found.append(
            f"it takes {figures['slowdown']:.2f} times as long as {production}, at most {gate.max_slowdown:.2f} is allowed"
        )
    return found
