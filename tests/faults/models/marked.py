"""A model that misbehaves on marked rows and is slow on purpose; the workers of the harness import it by their path.

It stands alone in its folder, so that nothing else of the tests comes within reach of a worker.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np

# Values of the column `support_calls`, which no real customer has.
MARK = "support_calls"
SEGFAULT, EXIT, LOOP, RAISE, EAT, HOARD = 900_001, 900_002, 900_003, 900_004, 900_005, 900_006

MORE_THAN_A_CHILD_MAY_HAVE = 3 << 30  # reserved and never touched, so it costs the machine nothing

_hoard: list[bytearray] = []


class Marked:
    """The fitted classifier `inner`, but for marked rows; `seconds_per_row` makes a short file a long job."""

    _estimator_type = "classifier"

    def __init__(self, inner: Any, seconds_per_row: float = 0.0) -> None:
        self.inner = inner
        self.seconds_per_row = seconds_per_row
        self.classes_ = inner.classes_
        self.feature_names_in_ = inner.feature_names_in_

    def __sklearn_tags__(self) -> Any:
        return self.inner.__sklearn_tags__()

    def predict(self, rows: Any) -> Any:
        _misbehave(rows)
        return self.inner.predict(rows)

    def predict_proba(self, rows: Any) -> Any:
        time.sleep(self.seconds_per_row * len(rows))
        _misbehave(rows)
        return self.inner.predict_proba(rows)


def _misbehave(rows: Any) -> None:
    marks = np.asarray(rows[MARK])
    if (marks == SEGFAULT).any():
        os.kill(os.getpid(), signal.SIGSEGV)
    if (marks == EXIT).any():
        os._exit(3)
    while (marks == LOOP).any():
        pass
    if (marks == EAT).any():
        bytearray(MORE_THAN_A_CHILD_MAY_HAVE)
    if (marks == HOARD).any():
        while 64 * len(_hoard) << 20 < MORE_THAN_A_CHILD_MAY_HAVE:
            _hoard.append(bytearray(64 << 20))
    if (marks == RAISE).any():
        raise ValueError("this model does not take such customers")
