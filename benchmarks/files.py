"""What a benchmark runs on: a seeded CSV of any number of rows, and models fitted on such rows.

A file has 9 columns (a key, 4 strings, 4 numbers) of about 80 bytes a row. Everything is made once, under
benchmarks/data/, and found there by the next run.
"""

from __future__ import annotations

from pathlib import Path

import joblib
import pyarrow as pa
import pyarrow.csv as pacsv
from rich.progress import track
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from examples import package
from examples.churn.data import BLOCK, COLUMNS, blocks, customers
from examples.package import Columns

DATA = Path(__file__).parent / "data"
SEED = 1
TRAINING_ROWS = 30_000


def random_forest(columns: Columns) -> Pipeline:
    encoded = ColumnTransformer(
        [
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(columns.categories)),
            ("numbers", SimpleImputer(strategy="median"), list(columns.numbers)),
        ]
    )
    forest = RandomForestClassifier(n_estimators=100, min_samples_leaf=20, random_state=SEED)
    return Pipeline([("encode", encoded), ("classify", forest)])


MODELS = {"logistic": package.logistic, "histgb": package.gradient_boosting, "forest": random_forest}


def csv_file(rows: int) -> Path:
    """The CSV of `rows` rows; written first under another name, so that a file that is there is whole."""
    path = DATA / f"customers-{rows}.csv"
    if path.exists():
        return path
    DATA.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.write((",".join([COLUMNS.key, *COLUMNS.features]) + "\n").encode())
        for block in track(blocks(rows, SEED), f"making {path.name}", total=-(-rows // BLOCK)):
            _append(block.drop_columns([COLUMNS.label]), file)
    return unfinished.rename(path)


def model_files(name: str) -> tuple[Path, Path]:
    """The artefact of one of `MODELS`, and the reference that goes with it."""
    artefact, folder = DATA / f"{name}.joblib", DATA
    reference = DATA / "reference.csv"
    if not artefact.exists() or not reference.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = customers(TRAINING_ROWS, SEED + 1)
        joblib.dump(MODELS[name](COLUMNS).fit(rows[COLUMNS.features], rows[COLUMNS.label]), artefact)
        package.write_reference(rows, folder, COLUMNS)
    return artefact, reference


def _append(table: pa.Table, file: object) -> None:
    # No string here needs quotes, and pyarrow would otherwise put them around every one.
    pacsv.write_csv(table, file, pacsv.WriteOptions(include_header=False, quoting_style="none"))
