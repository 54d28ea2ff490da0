"""What is known about kinds of scikit-learn estimators beyond their common interface."""

from __future__ import annotations

from typing import Any, Literal

from sklearn.base import is_classifier, is_regressor
from sklearn.pipeline import Pipeline

# Estimators whose `predict` is the most probable class of their `predict_proba`, except where the two largest
# probabilities tie within rounding (read in scikit-learn 1.9). Not among them: SVC (its probabilities are fitted
# apart from its decision), thresholds that were tuned, one-vs-rest ensembles, and whatever is not scikit-learn's.
_MOST_PROBABLE = frozenset(
    {
        "AdaBoostClassifier",
        "BaggingClassifier",
        "BernoulliNB",
        "CalibratedClassifierCV",
        "CategoricalNB",
        "DecisionTreeClassifier",
        "ExtraTreeClassifier",
        "ExtraTreesClassifier",
        "GaussianNB",
        "GradientBoostingClassifier",
        "HistGradientBoostingClassifier",
        "LogisticRegression",
        "LogisticRegressionCV",
        "MLPClassifier",
        "MultinomialNB",
        "RandomForestClassifier",
    }
)


def final_estimator(model: Any) -> Any:
    """The estimator that makes the prediction: the last step of a Pipeline, the best one of a search."""
    return taken_apart(model)[1]


def taken_apart(model: Any) -> tuple[list[Any], Any]:
    """(what transforms before it, the estimator that makes the prediction)."""
    transformers: list[Any] = []
    while True:
        if isinstance(model, Pipeline):
            transformers += [step for _, step in model.steps[:-1] if step not in (None, "passthrough")]
            model = model.steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        else:
            return transformers, model


def reads_class_off_probabilities(estimator: Any) -> bool:
    """Whether its class is its most probable one, ties aside; a subclass may differ, so the type must be exact."""
    kind = type(estimator)
    return kind.__module__.startswith("sklearn.") and kind.__name__ in _MOST_PROBABLE


def kind_of(model: Any) -> Literal["classification", "regression"] | None:
    """What the model predicts; None when it is neither a classifier nor a regressor."""
    if is_classifier(model):
        return "classification"
    return "regression" if is_regressor(model) else None
