"""A neural network in each of its forms: one row and 10,000, how far off, and what a row far out does to its neighbours.

    python -m benchmarks.networks

Beside ours stands what `quantize_dynamic` of ONNX Runtime makes of the same graph. Two layers of 256, 30 numbers, one core,
without parsing and storing. Prints a table for docs/decisions/0016.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
from onnxruntime.quantization import quantize_dynamic
from rich.console import Console
from rich.table import Table
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from examples.package import one_thread
from registry.compiled.compile import compile_model
from registry.compiled.quantise import quantise
from registry.compiled.record import Guards
from registry.compiled.runtime import CompiledRuntime
from registry.scores import Runtime
from registry.signature import Column, Output, Signature
from registry.sklearn_runtime import SklearnRuntime

COLUMNS = [f"c{place}" for place in range(30)]
ROWS, FITTED = 10_000, 4_000
REPEATS = {1: 200, ROWS: 15}
FAR_OUT = 1e5
SIGNATURE = Signature(
    columns=[Column(name=name, type="number") for name in COLUMNS],
    output=Output(
        kind="classification",
        classes=[0, 1],
        class_type="integer",
        has_probability=True,
        class_from="probabilities",
    ),
)


def main() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(ROWS, len(COLUMNS))), columns=COLUMNS)
    labels = (frame["c0"] * frame["c1"] + frame["c2"] > 0).astype(int)
    network = MLPClassifier((256, 256), tol=1e-3, n_iter_no_change=5, random_state=0)
    with one_thread():
        model = make_pipeline(StandardScaler(), network).fit(frame[:FITTED], labels[:FITTED])
        original = SklearnRuntime(model)
        forms = {"scikit-learn": original, **compiled(original)}
        rows = pa.Table.from_pandas(frame, preserve_index=False)
        seconds = {count: measured(forms, rows.slice(0, count), repeats) for count, repeats in REPEATS.items()}
        exact = scored(original, rows).probabilities
        shifted = frame.copy()
        shifted.iloc[0, 0] = FAR_OUT
        beside = pa.Table.from_pandas(shifted, preserve_index=False)
        table = Table(
            "form", "one row, ms", "10,000 rows, ms", "largest difference", "other classes", "beside a row far out"
        )
        for name, runtime in forms.items():
            found, shaken = scored(runtime, rows), scored(runtime, beside)
            flips = (found.probabilities.argmax(axis=1) != exact.argmax(axis=1)).sum()
            table.add_row(
                name,
                *(f"{1e3 * seconds[count][name]:.2f}" for count in REPEATS),
                f"{np.abs(found.probabilities - exact).max():.2g}",
                str(flips),
                f"{np.abs(shaken.probabilities - exact)[1:].max():.2g}",
            )
    Console(width=110).print(table)


def compiled(original: SklearnRuntime) -> dict[str, Runtime]:
    double, single = (compile_model(original, SIGNATURE, single=single) for single in (False, True))
    contents = {
        "compiled, double": double,
        "single": single,
        "int8, a row at a time": quantise(single),
        "int8 of quantize_dynamic": dynamic(single),
    }
    return {name: CompiledRuntime(original, content, SIGNATURE, Guards()) for name, content in contents.items()}


def dynamic(content: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "given.onnx"), Path(folder, "made.onnx")
        given.write_bytes(content)
        quantize_dynamic(given, made, per_channel=True)
        return bytes(onnx.load(made).SerializeToString())


def measured(forms: Mapping[str, Runtime], rows: Any, repeats: int) -> dict[str, float]:
    """Medians of seconds, by turns."""
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeats):
        for name, runtime in forms.items():
            began = time.perf_counter()
            scored(runtime, rows)
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def scored(runtime: Runtime, rows: Any) -> Any:
    return runtime.predict(runtime.model_input(rows, SIGNATURE), class_from="probabilities")


if __name__ == "__main__":
    main()
