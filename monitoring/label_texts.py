"""Labels as text: how they name a class or a number, and what the lack of one means. Only numpy is needed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.signature import Label

#: (n,) text; None or blank where there is none.
Texts = Sequence[str | None] | npt.NDArray[Any]

#: The place of a row without a label.
UNLABELLED = -1


class Places(dict[str | None, int]):
    """The index of the class that a text names: k for none of the k classes, `UNLABELLED` for no text.

    Classes that are numbers or booleans match by value, so `1`, `1.0` and `true` (in any case) are the same; classes
    that are text match exactly. White space around a text is dropped. Each text is read once.
    """

    def __init__(self, classes: Sequence[Label]) -> None:
        super().__init__({None: UNLABELLED} | {str(label): place for place, label in enumerate(classes)})
        self._by_number = {float(label): place for place, label in enumerate(classes) if not isinstance(label, str)}
        self._none = len(classes)

    def of(self, texts: Texts) -> npt.NDArray[np.int64]:
        """(n,) places of n texts."""
        return np.fromiter(map(self.__getitem__, texts), np.int64, len(texts))

    def __missing__(self, text: str | None) -> int:
        place = self[text] = self._read((text or "").strip())
        return place

    def _read(self, text: str) -> int:
        if not text:
            return UNLABELLED
        if text in self:
            return self[text]
        return self._by_number.get(number({"true": "1", "false": "0"}.get(text.lower(), text)), self._none)


def with_horizon(
    labels: Texts, at: Sequence[datetime], now: datetime, horizon: timedelta, negative: Label
) -> list[str | None]:
    """Labels of a model for which "no event by the horizon" means negative.

    Args:
        labels: (n,) text; None or blank where no label has come.
        at: (n,) when each was predicted. A prediction as old as the horizon, without a label, gets the negative one.
    """
    due, filled = now - horizon, str(negative)
    return [filled if blank(label) and predicted <= due else label for label, predicted in zip(labels, at, strict=True)]


def number(text: str) -> float:
    """The number that a text spells; NaN if it spells none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def blank(text: str | None) -> bool:
    return text is None or not text.strip()
