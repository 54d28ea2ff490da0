"""Recipes: how rows become a fitted estimator. Ours choose among candidates; a user's own is plugged in by entry point.

A recipe is a function `(X, y, context) -> fitted estimator`. X is a DataFrame (n rows) as workers hand it to the model,
y a Series of n labels. A package offers one as

    [project.entry-points."scorehouse.training"]
    my-recipe = "my_package.module:function"

and `scorehouse train … --recipe my-recipe`, or a training policy, uses it. It must be installed where it runs: beside
the command line for `train`, beside the workers for retraining.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal

import pandas as pd

from errors import InvalidInput
from registry.signature import Signature

GROUP = "scorehouse.training"
DEFAULT = "default"

#: What goes on: the stage, how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]


@dataclass
class Context:
    """What a recipe may want to know, and where it says what it did.

    Attributes:
        kind: what is predicted.
        signature: names and types of the columns.
        in_time: whether the rows are in the order of time, so that a fold must not learn from what came later.
        seed: for whatever is random.
        progress: call it now and then; people wait.
        candidates: what was tried, as documents for the model card.
        notes: sentences for the model card.
    """

    kind: Literal["classification", "regression"]
    signature: Signature
    in_time: bool
    seed: int
    progress: Progress = lambda *_: None
    candidates: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Recipe = Callable[[pd.DataFrame, "pd.Series[Any]", Context], Any]


def recipe_of(name: str) -> Recipe:
    """The recipe of a name: one of ours, else the one that an installed package offers.

    Raises:
        InvalidInput: there is none, it cannot be imported, or it is no function.
    """
    from training.candidates import OURS  # noqa: PLC0415  # they use what stands here

    if name in OURS:
        return OURS[name]
    offered = {point.name: point for point in entry_points(group=GROUP)}
    if name not in offered:
        known = ", ".join([*OURS, *sorted(offered)])
        raise InvalidInput(
            f"there is no recipe '{name}'; there are: {known}. A package offers one by an entry point of the group '{GROUP}'"
        )
    try:
        found = offered[name].load()
    except Exception as exc:  # whatever the import raises is the package's
        raise InvalidInput(f"the recipe '{name}' ({offered[name].value}) cannot be imported: {exc!r}") from exc
    if not callable(found):
        raise InvalidInput(f"the recipe '{name}' ({offered[name].value}) is no function (X, y, context)")
    recipe: Recipe = found
    return recipe
