"""A fitted model of every kind that can be registered, saved as people save it, with what it answers in this process."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import skops.io
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from toys import customers

NUMBERS = ["amount", "visits"]
SINGLE = 1e-5  # ONNX in single precision


@dataclass(frozen=True)
class Kind:
    """How a model is made and saved; `truth` makes the target from the records of `customers`."""

    ending: str
    truth: Callable[[pd.DataFrame], Any]
    estimator: Any
    save: Callable[[Any, pd.DataFrame, Path], None]
    columns: tuple[str, ...] = tuple(NUMBERS)
    tolerance: float = 1e-12

    def records(self, count: int, seed: int) -> pd.DataFrame:
        """Inputs with a key `id` and the target `truth`."""
        frame = customers(count, seed).dropna(subset=["segment"]).reset_index(drop=True)
        return frame[["id", *self.columns]].assign(truth=self.truth(frame))

    def fitted(self, frame: pd.DataFrame) -> Any:
        return clone(self.estimator).fit(frame[list(self.columns)], frame["truth"])

    def answers(self, model: Any, frame: pd.DataFrame) -> tuple[list[Any], Any]:
        """Labels, and probabilities if it has any."""
        inputs = frame[list(self.columns)]
        return model.predict(inputs).tolist(), getattr(model, "predict_proba", lambda _: None)(inputs)


def left(frame: pd.DataFrame) -> Any:
    return frame["left"]


def words(frame: pd.DataFrame) -> Any:
    return frame["left"].map({0: "stays", 1: "leaves"})


def flags(frame: pd.DataFrame) -> Any:
    return frame["left"] == 1


def thirds(frame: pd.DataFrame) -> Any:
    return np.digitize(frame["amount"], [40, 60])


def named_thirds(frame: pd.DataFrame) -> Any:
    return np.array(["low", "middle, or so", "high"])[thirds(frame)]


def price(frame: pd.DataFrame) -> Any:
    return 3.0 - frame["amount"] * 1.7 + frame["visits"] + frame["left"]


def as_joblib(model: Any, _frame: pd.DataFrame, path: Path) -> None:
    joblib.dump(model, path)


def as_skops(model: Any, _frame: pd.DataFrame, path: Path) -> None:
    skops.io.dump(model, path)


def as_dict(model: Any, _frame: pd.DataFrame, path: Path) -> None:
    parts = {"model": model[-1], "preprocessor": model[0], "feature_names": NUMBERS}
    path.write_bytes(pickle.dumps(parts))


def as_onnx(**options: Any) -> Callable[[Any, pd.DataFrame, Path], None]:
    """One tensor of doubles, or of floats with `single`."""
    single = options.pop("single", False)

    def save(model: Any, frame: pd.DataFrame, path: Path) -> None:
        sample = frame[NUMBERS].to_numpy(dtype=np.float32 if single else np.float64)[:1]
        path.write_bytes(to_onnx(model, sample, options=options or None).SerializeToString())

    return save


def as_named_onnx(model: Any, _frame: pd.DataFrame, path: Path) -> None:
    """A tensor per column, and a ZipMap."""
    types = [
        ("amount", FloatTensorType([None, 1])),
        ("visits", Int64TensorType([None, 1])),
        ("segment", StringTensorType([None, 1])),
    ]
    path.write_bytes(to_onnx(model, initial_types=types).SerializeToString())


def _mixed() -> Any:
    encoded = ColumnTransformer(
        [("numbers", StandardScaler(), NUMBERS), ("segment", OneHotEncoder(handle_unknown="ignore"), ["segment"])]
    )
    return make_pipeline(encoded, LogisticRegression(max_iter=500))


def _scaled(estimator: Any) -> Any:
    return make_pipeline(StandardScaler(), estimator)


_MIXED = (*NUMBERS, "segment")
_LOGISTIC = _scaled(LogisticRegression(max_iter=500))
_FOREST = RandomForestClassifier(30, max_depth=4, n_jobs=4, random_state=0)

KINDS = {
    "texts-skops": Kind("skops", words, _LOGISTIC, as_skops),
    "texts-multiclass-pipeline": Kind("joblib", named_thirds, _mixed(), as_joblib, _MIXED),
    "integers-multiclass-forest": Kind("joblib", thirds, _FOREST, as_joblib),
    "booleans-boosting": Kind("joblib", flags, HistGradientBoostingClassifier(max_iter=10), as_joblib),
    "decision-linear-svc": Kind("joblib", named_thirds, _scaled(LinearSVC()), as_joblib),
    "decision-sgd": Kind("joblib", left, _scaled(SGDClassifier(random_state=0)), as_joblib),
    "decision-ridge": Kind("joblib", flags, RidgeClassifier(), as_joblib),
    "regressor": Kind("joblib", price, HistGradientBoostingRegressor(max_iter=10), as_joblib),
    "dict": Kind("pkl", left, _LOGISTIC, as_dict),
    "onnx-double": Kind("onnx", left, _LOGISTIC, as_onnx(zipmap=False)),
    "onnx-forest": Kind("onnx", named_thirds, _FOREST, as_onnx(zipmap=False, single=True), tolerance=SINGLE),
    "onnx-columns-zipmap": Kind("onnx", words, _mixed(), as_named_onnx, _MIXED, tolerance=SINGLE),
    "onnx-decision": Kind("onnx", left, LinearSVC(), as_onnx(single=True), tolerance=SINGLE),
    "onnx-regressor": Kind("onnx", price, LinearRegression(), as_onnx(), tolerance=1e-9),
}
