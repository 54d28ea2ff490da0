"""Predictions for tests that need rows and no model."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np

from db import binary_copy


def predicted(job_id: UUID, rows: Sequence[int]) -> bytes:
    """What `db.predictions.copy` takes: prediction 1 with probability 0.5 and the key kROW for each of the rows."""
    keys = [f"k{row}".encode() for row in rows]
    ones = np.frombuffer(b"1" * len(rows), np.uint8)
    return binary_copy.encode(
        [
            binary_copy.uuids([job_id], np.zeros(len(rows), int)),
            binary_copy.integers(np.array(rows)),
            binary_copy.integers(np.full(len(rows), 1)),
            binary_copy.texts(np.cumsum([0, *map(len, keys)]), np.frombuffer(b"".join(keys), np.uint8)),
            binary_copy.texts(np.arange(len(rows) + 1), ones),
            binary_copy.floats(np.full(len(rows), 0.5)),
            binary_copy.nothing(len(rows)),
        ]
    )
