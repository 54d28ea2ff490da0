"""Labelled rows, typed as a worker types them: what a model is fitted on is what it will be asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from registry.model_input import to_model_input
from registry.signature import Column, Signature

Positions = npt.NDArray[np.int64]
#: Microseconds since 1970 in UTC.
Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """n labelled rows.

    Attributes:
        signature: the columns, the key and the target; the output is not examined yet.
        features: arrow table (n rows) with the columns of the signature, typed as `registry.cells` says.
        labels: string array (n,), none blank.
        keys: string array (n,) of the record keys; None without a key column.
        times: (n,) microseconds since 1970 in UTC that the rows stand for; None when nothing says.
    """

    signature: Signature
    features: Any
    labels: Any
    keys: Any = None
    times: Times | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def frame(self) -> pd.DataFrame:
        """(n, columns) as the worker hands them to the model."""
        found = to_model_input(self.features, self.signature.model_copy(update={"frame": "object"}))
        assert isinstance(found, pd.DataFrame), "an object frame is a DataFrame"
        return found

    def take(self, positions: Positions) -> Rows:
        places = pa.array(positions)
        return replace(
            self,
            features=self.features.take(places),
            labels=self.labels.take(places),
            keys=None if self.keys is None else self.keys.take(places),
            times=None if self.times is None else self.times[positions],
        )

    def select(self, names: Sequence[str]) -> Rows:
        """The same rows with these columns only, in this order."""
        by_name = {column.name: column for column in self.signature.columns}
        chosen: list[Column] = [by_name[name] for name in names]
        signature = Signature(columns=chosen, key=self.signature.key, target=self.signature.target)
        return replace(self, signature=signature, features=self.features.select(list(names)))


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several sets with one signature, one after the other; times only if all parts have them."""
    first = parts[0]
    known = [part.times for part in parts if part.times is not None]
    keyed = [part.keys for part in parts if part.keys is not None]
    return replace(
        first,
        features=pa.concat_tables([_plain(part.features) for part in parts]).combine_chunks(),
        labels=pa.concat_arrays([_single(part.labels) for part in parts]),
        keys=pa.concat_arrays([_single(keys) for keys in keyed]) if len(keyed) == len(parts) else None,
        times=np.concatenate(known) if len(known) == len(parts) else None,
    )


def _plain(features: Any) -> Any:
    """Words as strings: each part has a dictionary of its own."""
    for place, field in enumerate(features.schema):
        if pa.types.is_dictionary(field.type):
            features = features.set_column(place, field.name, features.column(place).cast(pa.string()))
    return features


def _single(values: Any) -> Any:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
