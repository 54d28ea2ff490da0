"""Results as tables: Arrow batches, or a pandas DataFrame. Needs the extra `arrow` or `pandas`, nothing else here does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scorehouse_client.errors import ScorehouseClientError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

BATCH_ROWS = 65_536


class TableCalls:
    """Mixed into `Client`."""

    if TYPE_CHECKING:

        def download(self, job_id: str, output: Path, *, format: Literal["parquet"], include_inputs: bool) -> None: ...

    def batches(
        self, job_id: str, *, include_inputs: bool = False, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """The results in input order, as Arrow record batches of at most `batch_rows` rows.

        Their columns have types: `prediction` that of the model's classes or numbers, probabilities doubles. All of it is
        fetched to a temporary file before the first batch, so memory holds one batch and a break in between is repeated.

        Raises:
            ScorehouseApiError, ConnectionFailed
            ScorehouseClientError: pyarrow is not installed.
        """
        parquet = _imported("pyarrow.parquet", "arrow")
        return self._batches(parquet, job_id, include_inputs, batch_rows)

    def frame(self, job_id: str, *, include_inputs: bool = False) -> pd.DataFrame:
        """The results in input order, as one pandas DataFrame, which must fit into memory. Raises as `batches` does."""
        _imported("pandas", "pandas")
        parquet = _imported("pyarrow.parquet", "pandas")
        with tempfile.TemporaryDirectory(prefix="scorehouse-") as folder:
            found: pd.DataFrame = parquet.read_table(self._fetched(folder, job_id, include_inputs)).to_pandas()
        return found

    def _batches(self, parquet: Any, job_id: str, include_inputs: bool, batch_rows: int) -> Iterator[pa.RecordBatch]:
        with (
            tempfile.TemporaryDirectory(prefix="scorehouse-") as folder,
            parquet.ParquetFile(self._fetched(folder, job_id, include_inputs)) as file,
        ):
            yield from file.iter_batches(batch_size=batch_rows)

    def _fetched(self, folder: str, job_id: str, include_inputs: bool) -> Path:
        path = Path(folder) / "results.parquet"
        self.download(job_id, path, format="parquet", include_inputs=include_inputs)
        return path


def _imported(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as exc:
        raise ScorehouseClientError(
            f"{name.partition('.')[0]} is not installed: pip install 'scorehouse-client[{extra}]'"
        ) from exc
