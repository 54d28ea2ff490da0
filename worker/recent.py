"""The latest answers to single records: a row that was scored by the same artefact a moment ago is not scored again.

What is remembered is an answer, never a prediction: each row that asks is stored like any other. Only rows that a model scored
are remembered, so row errors and their messages are always fresh. Registration refuses models that answer a row differently
from one call to the next, so whatever is registered may be remembered.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from registry.parsed import Parsed
from registry.scores import Runtime, Scores, merged
from registry.scoring import Scored, score
from registry.signature import Signature

# Of `marshal`, without references: equal rows have equal bytes, and 0.0 is not -0.0.
_PLAIN = 2


class Recent:
    """At most `size` answers, those of the rows asked for last; for one thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._answers: OrderedDict[tuple[str, bytes], tuple[Any, Any]] = OrderedDict()
        self._hits = self._misses = 0

    def score(self, runtime: Runtime, parsed: Parsed, signature: Signature, digest: str) -> Scored:
        """As `registry.scoring.score`, of the artefact with this digest."""
        if not self._size or any(column.type == "timestamp" for column in signature.columns):
            return score(runtime, parsed, signature)
        keys = [(digest, row) for row in _rows(parsed.features)]
        known = [self._answer(key) for key in keys]
        fresh = np.array([at for at, answer in enumerate(known) if answer is None], dtype=np.int64)
        self._hits += len(keys) - len(fresh)
        self._misses += len(fresh)
        scored = score(runtime, parsed if len(fresh) == len(keys) else _taken(parsed, fresh), signature)
        # What errored is not among the rows that scored.
        self._remember([keys[at] for at in np.searchsorted(parsed.rows, scored.rows).tolist()], scored)
        if len(fresh) == len(keys):
            return scored
        return _merged(parsed, scored, {at: answer for at, answer in enumerate(known) if answer is not None})

    def counted(self) -> dict[str, int]:
        """Hits and misses since this was asked last."""
        found = {"cache_hits": self._hits, "cache_misses": self._misses}
        self._hits -= found["cache_hits"]
        self._misses -= found["cache_misses"]
        return found

    def _answer(self, key: tuple[str, bytes]) -> tuple[Any, Any] | None:
        found = self._answers.get(key)
        if found is not None:
            self._answers.move_to_end(key)
        return found

    def _remember(self, keys: list[tuple[str, bytes]], scored: Scored) -> None:
        probabilities = [None] * len(keys) if scored.probabilities is None else list(scored.probabilities)
        for key, label, row in zip(keys, scored.prediction.tolist(), probabilities, strict=True):
            self._answers[key] = (label, row)
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)


def _rows(features: Any) -> list[bytes]:
    """Each row in one spelling: its typed values, so that `1.50` and `1.5` are the same."""
    columns = [features.column(place).to_pylist() for place in range(features.num_columns)]
    return [marshal.dumps(values, _PLAIN) for values in zip(*columns, strict=True)]


def _taken(parsed: Parsed, at: npt.NDArray[np.int64]) -> Parsed:
    keys = None if parsed.keys is None else parsed.keys.take(pa.array(at))
    return replace(parsed, rows=parsed.rows[at], keys=keys, features=parsed.features.take(pa.array(at)))


def _merged(parsed: Parsed, scored: Scored, known: dict[int, tuple[Any, Any]]) -> Scored:
    """What was scored now and what was known, in the order of the rows."""
    known_rows = parsed.rows[list(known)]
    labels = np.array([label for label, _ in known.values()], dtype=scored.prediction.dtype)
    with_probabilities = scored.probabilities is not None
    remembered = Scores(labels, np.array([row for _, row in known.values()]) if with_probabilities else None)
    scores = merged(Scores(scored.prediction, scored.probabilities), scored.rows, remembered, known_rows)
    rows = np.sort(np.concatenate([scored.rows, known_rows]))
    keys = None if parsed.keys is None else parsed.keys.take(pa.array(np.searchsorted(parsed.rows, rows)))
    return Scored(rows, keys, scores.prediction, scores.probabilities, scored.errors)
