"""Small models that are quick to fit and to score, of scikit-learn's own classes only, and data for them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

VERSION = "1.0.0"
# Every column type: number, integer, nullable category, boolean, text.
COLUMNS = ("amount", "visits", "segment", "active", "note")
# Labels that CSV must quote, and that a spreadsheet would run.
SHADES = ("=1+1", "calm, low", "mid")


@dataclass(frozen=True)
class Toy:
    """A fitted model with its files, and the records of its reference."""

    name: str
    model: Any
    frame: pd.DataFrame
    key: str | None
    target: str
    artefact: Path
    reference: Path

    def predict(self, frame: pd.DataFrame) -> tuple[list[Any], Any]:
        """The model's own answer in this process: labels and probabilities (None for regression)."""
        inputs = frame[list(self.model.feature_names_in_)]
        probabilities = self.model.predict_proba(inputs) if hasattr(self.model, "predict_proba") else None
        return self.model.predict(inputs).tolist(), probabilities


def customers(count: int, seed: int = 7) -> pd.DataFrame:
    """Records of the toy model, with a string key `id` and the label `left`."""
    random = np.random.default_rng(seed)
    amount = random.normal(50, 20, count).round(2)
    visits = random.integers(0, 30, count)
    segment = random.choice(np.array(["gold", "silver", "new", None], dtype=object), count)
    active = random.random(count) < 0.6
    words = np.array(["fine", "late again", "wants a refund", "no answer", "thanks a lot"])
    note = [f"{word} {number}" for word, number in zip(random.choice(words, count), range(count), strict=True)]
    left = (amount / 50 + random.normal(0, 1, count) - active > 0.5).astype(int)
    return pd.DataFrame(
        {
            "id": [f"c{number:05}" for number in range(count)],
            "amount": amount,
            "visits": visits,
            "segment": segment,
            "active": active,
            "note": note,
            "left": left,
        }
    )


def to_csv(frame: pd.DataFrame, **options: Any) -> bytes:
    """CSV as a person's spreadsheet might write it: nulls are empty cells."""
    return frame.to_csv(index=False, lineterminator="\n", **options).encode()


def csv_bytes(*lines: list[str], delimiter: str = ",", end: str = "\n") -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator=end).writerows(lines)
    return buffer.getvalue().encode()


def make_toys(folder: Path) -> dict[str, Toy]:
    data = customers(400)
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    encoded = ColumnTransformer(
        [
            ("numbers", numbers, ["amount", "visits"]),
            ("segment", OneHotEncoder(handle_unknown="ignore"), ["segment"]),
            ("active", "passthrough", ["active"]),
            ("note", CountVectorizer(max_features=20), "note"),
        ]
    )
    toy = Pipeline([("encode", encoded), ("classify", LogisticRegression(max_iter=500))])
    toy.fit(data[list(COLUMNS)], data["left"])

    shaded = data[["amount", "visits"]].assign(shade=pd.cut(data["amount"], [-1e9, 40, 60, 1e9], labels=SHADES))
    shaded["shade"] = shaded["shade"].astype(str)
    shades = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    shades.fit(shaded[["amount", "visits"]], shaded["shade"])

    priced = data[["id", "amount", "visits"]].assign(price=3.0 - data["amount"] * 1.7 + data["visits"])
    prices = LinearRegression().fit(priced[["amount", "visits"]], priced["price"])

    # It raises on a category that it was not fitted on: a model that fails on some rows.
    strict_data = data[["id", "amount", "segment", "left"]].dropna()
    picky = ColumnTransformer(
        [
            ("segment", OneHotEncoder(handle_unknown="error"), ["segment"]),
            ("amount", "passthrough", ["amount"]),
        ]
    )
    strict = make_pipeline(picky, LogisticRegression(max_iter=500))
    strict.fit(strict_data[["amount", "segment"]], strict_data["left"])

    return {
        "toy": _saved(folder, "toy", toy, data, "id", target="left"),
        "shades": _saved(folder, "shades", shades, shaded, None, target="shade"),
        "prices": _saved(folder, "prices", prices, priced, "id", target="price"),
        "strict": _saved(folder, "strict", strict, strict_data, "id", target="left"),
    }


def _saved(folder: Path, name: str, model: Any, frame: pd.DataFrame, key: str | None, *, target: str) -> Toy:
    artefact, reference = folder / f"{name}.joblib", folder / f"{name}.csv"
    joblib.dump(model, artefact)
    reference.write_bytes(to_csv(frame))
    return Toy(name, model, frame, key, target, artefact, reference)
