"""Predictions for tests that need rows and no model."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np

from db import binary_copy
from db.predictions import FILTERED_FROM
from records.key_filter import key_filter


def predicted(job_id: UUID, rows: Sequence[int], version_id: int = 1) -> bytes:
    """What `db.predictions.copy` takes: a block with prediction 1, probability 0.5 and the key kROW for each of the rows."""
    if not rows:
        return b""
    keys = [f"k{row}".encode() for row in rows]
    offsets, data = np.cumsum([0, *map(len, keys)]), np.frombuffer(b"".join(keys), np.uint8)
    ones = np.frombuffer(b"1" * len(rows), np.uint8)
    block = (
        job_id.bytes,
        binary_copy.int4(rows[0]),
        binary_copy.int4(version_id),
        None if list(rows) == list(range(rows[0], rows[0] + len(rows))) else binary_copy.int_array(np.array(rows)),
        binary_copy.text_array(offsets, data),
        binary_copy.text_array(np.arange(len(rows) + 1), ones),
        binary_copy.float_array(np.full(len(rows), 0.5)),
        None,
        key_filter(offsets, data) if len(rows) >= FILTERED_FROM else None,
    )
    return binary_copy.stream([block])
