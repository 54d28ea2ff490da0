"""Did scoring a month of flights do what it should, and did the predictions come true?"""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
import pandas as pd

from examples.flights.data import COLUMNS, flights
from examples.package import one_thread

TOLERANCE = 1e-12
KEY = COLUMNS.key


def unaccounted(inputs: Path, results: Path, errors: Path) -> list[str]:
    """What is wrong with the books, in sentences: each input must be one result, in order, or else one row error."""
    sent = pd.read_csv(inputs, usecols=[KEY])[KEY]
    scored = pd.read_csv(results, usecols=[KEY])[KEY]
    failed = pd.read_csv(errors, usecols=["row"])["row"]
    found = []
    if failed.duplicated().any():
        found.append(f"{int(failed.duplicated().sum())} row errors are there twice")
    if len(scored) + len(failed) != len(sent):
        found.append(f"{len(scored)} results and {len(failed)} row errors do not make {len(sent)} rows")
    left = sent.drop(failed - 1, errors="ignore")
    if not np.array_equal(left.to_numpy(), scored.to_numpy()):
        found.append("the results are not those of the other rows, in the order of the file")
    return found


def unlike_the_model(model: Path, inputs: Path, results: Path) -> list[str]:
    """How the results differ from calling the model here, in sentences.

    Only load a model that this machine has trained: loading runs code.
    """
    scored = pd.read_csv(results)
    rows = pd.read_csv(inputs).set_index(KEY).loc[scored[KEY]]
    fitted = joblib.load(model)
    with one_thread():
        probability = fitted.predict_proba(rows[COLUMNS.features])[:, 1]
        classes = fitted.predict(rows[COLUMNS.features])
    found = []
    differing = int((classes != scored["prediction"].to_numpy()).sum())
    if differing:
        found.append(f"{differing} of {len(scored)} classes differ from the model's own")
    largest = float(np.abs(probability - scored["probability"].to_numpy()).max())
    if not largest <= TOLERANCE:
        found.append(f"a probability is {largest:.1e} off the model's own, more than {TOLERANCE:.0e}")
    return found


def outcome(results: Path) -> pd.DataFrame:
    """Predicted class against what really happened: flights by `predicted` (rows) and `on time`, `late`, `never arrived`."""
    truth = flights([4]).set_index(KEY)[COLUMNS.label]
    scored = pd.read_csv(results)
    happened = truth.loc[scored[KEY]].map({0: "on time", 1: "late"}).fillna("never arrived")
    predicted = scored["prediction"].map({0: "on time", 1: "late"})
    counted = pd.crosstab(predicted.to_numpy(), happened.to_numpy())
    return counted.reindex(index=["on time", "late"], columns=["on time", "late", "never arrived"], fill_value=0)


def accuracy(counted: pd.DataFrame) -> float:
    """Share of the flights that arrived whose lateness was predicted rightly."""
    arrived = counted[["on time", "late"]]
    return float(np.diag(arrived).sum() / arrived.to_numpy().sum())
