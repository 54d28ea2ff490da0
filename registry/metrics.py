"""How well a version does on its reference, when that holds the target."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from errors import InvalidPackage
from registry.signature import Output

_BOOLEANS = {"true": True, "True": True, "TRUE": True, "1": True, "false": False, "False": False, "FALSE": False}
# scikit-learn's bound for the logarithm; its `log_loss` itself does not take sums that single precision has rounded.
_LEAST = np.finfo(np.float64).eps
_BOOLEANS |= {"0": False}


def reference_metrics(
    target: str,
    texts: list[str],
    prediction: npt.NDArray[Any],
    probabilities: npt.NDArray[np.float64] | None,
    output: Output,
) -> dict[str, float]:
    """Metrics over the rows whose target is not blank; `rows` is how many these are.

    Classification: accuracy, weighted precision, recall and f1; binary ones also those of the positive class
    (`…_positive`), with probabilities log_loss, and for two classes roc_auc and brier. Regression: mae, rmse, r2.
    A metric that the rows do not define (one class only) is left out.

    Raises:
        InvalidPackage: a target that is not one of the classes, or not a number for regression.
    """
    known = np.array([bool(text.strip()) for text in texts], dtype=bool)
    labels = [_label(target, text.strip(), output) for text in texts if text.strip()]
    if not labels:
        return {"rows": 0.0}
    if output.kind == "regression":
        found = _regression(np.array(labels, dtype=np.float64), prediction[known].astype(np.float64))
    else:
        truth = np.array([_place(label, output) for label in labels])
        guess = np.array([_place(label, output) for label in prediction[known].tolist()])
        found = _classification(truth, guess, None if probabilities is None else probabilities[known], output)
    finite = {name: float(value) for name, value in found.items() if np.isfinite(value)}
    return {"rows": float(len(labels)), **finite}


def _classification(
    truth: npt.NDArray[Any], guess: npt.NDArray[Any], probabilities: npt.NDArray[np.float64] | None, output: Output
) -> dict[str, float]:
    assert output.classes is not None
    found = {"accuracy": metrics.accuracy_score(truth, guess)}
    for suffix, options in _averages(output):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, guess, zero_division=0, **options)
        found |= {f"precision{suffix}": precision, f"recall{suffix}": recall, f"f1{suffix}": f1}
    if probabilities is not None:
        likelihood = probabilities[np.arange(len(truth)), truth]
        found["log_loss"] = float(-np.log(np.clip(likelihood, _LEAST, 1)).mean())
        if len(output.classes) == 2:
            found["brier"] = float(np.mean((probabilities[:, 1] - truth) ** 2))
            if len(set(truth.tolist())) == 2:
                found["roc_auc"] = metrics.roc_auc_score(truth, probabilities[:, 1])
    return found


def _averages(output: Output) -> list[tuple[str, dict[str, Any]]]:
    weighted: tuple[str, dict[str, Any]] = ("", {"average": "weighted"})
    if output.positive is None:
        return [weighted]
    return [weighted, ("_positive", {"average": "binary", "pos_label": _place(output.positive, output)})]


def _regression(truth: npt.NDArray[np.float64], guess: npt.NDArray[np.float64]) -> dict[str, float]:
    found = {"mae": metrics.mean_absolute_error(truth, guess), "rmse": metrics.root_mean_squared_error(truth, guess)}
    return found | {"r2": metrics.r2_score(truth, guess)} if len(truth) > 1 else found


def _place(label: Any, output: Output) -> int:
    assert output.classes is not None
    return output.classes.index(label)


def _label(target: str, text: str, output: Output) -> Any:
    try:
        if output.kind == "regression" or output.class_type in ("integer", "number"):
            label: Any = float(text)
        else:
            label = _BOOLEANS[text] if output.class_type == "boolean" else text
    except (ValueError, KeyError):
        label = None
    if label is None or (output.classes is not None and label not in output.classes):
        wanted = "a number" if output.classes is None else f"one of {', '.join(map(str, output.classes))}"
        raise InvalidPackage(
            f"the target column '{target}' of the reference holds '{text}'; expected {wanted}. "
            "Name another target column, or correct the reference"
        )
    return label
