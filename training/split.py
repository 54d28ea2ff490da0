"""The rows that a model is judged on: the last ones in time, or, where nothing says the time, some drawn by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from errors import InvalidInput
from training.rows import Positions, Times

FEWEST = 30


@dataclass(frozen=True)
class Split:
    """Positions to fit on and positions to judge on; `boundary` is the time of the first row of the hold-out."""

    training: Positions
    hold_out: Positions
    by: Literal["time", "random"]
    boundary: int | None = None


def split(values: npt.NDArray[Any], times: Times | None, *, share: float, seed: int, stratified: bool) -> Split:
    """Hold out `share` of n rows.

    With `times` (n,) the latest rows, and rows of one moment stay together; the training rows come in the order of
    time. Else a random sample, `stratified` by the labels `values` (n,) of a classification.

    Raises:
        InvalidInput: either side would have fewer than 30 rows, or the earlier rows have one class only.
    """
    rows = len(values)
    if times is None:
        _check(round(rows * share), rows)
        training, hold_out = train_test_split(
            np.arange(rows), test_size=share, random_state=seed, stratify=values if stratified else None
        )
        return Split(np.sort(training), np.sort(hold_out), "random")
    order = np.argsort(times, kind="stable")
    boundary = times[order[min(rows - 1, int(rows * (1 - share)))]]
    before = times[order] < boundary
    _check(rows - int(before.sum()), rows)
    training = order[before]
    if stratified and len(np.unique(values[training])) < 2:
        raise InvalidInput("all rows before the hold-out have one label; hold out less, or split at random")
    return Split(training, order[~before], "time", int(boundary))


def _check(held: int, rows: int) -> None:
    if min(held, rows - held) < FEWEST:
        raise InvalidInput(
            f"{rows:,} labelled rows leave {rows - held:,} to fit on and {held:,} to judge by; "
            f"at least {FEWEST} of each are needed: give more rows, or another share with --hold-out"
        )
