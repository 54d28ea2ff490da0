"""From a fitted model and a reference CSV to a package, for the kinds of models that people bring."""

from __future__ import annotations

import hashlib
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from errors import ArtefactRefused, InvalidPackage
from registry.examine import Package, check_golden, examine
from registry.model_input import to_model_input
from registry.parse import parse_csv
from registry.runtime import load

RANDOM = np.random.default_rng(3)
ROWS = 240


def flights() -> pd.DataFrame:
    distance = RANDOM.integers(80, 3000, ROWS)
    late = distance / 1500 + RANDOM.normal(size=ROWS)
    frame = pd.DataFrame(
        {
            "flight_id": [f"F{at:04d}" for at in range(ROWS)],
            "carrier": RANDOM.choice(["UA", "AA", 'B"6', "D,L"], ROWS),
            "origin": RANDOM.choice(["EWR", "JFK", None], ROWS),
            "distance": distance,
            "delay": late.round(3),
            "late": (late > 1).astype(int),
            "note": [f"note {at}" for at in range(ROWS)],
        }
    )
    frame.loc[3, "delay"] = np.nan
    return frame


FLIGHTS = flights()
WORDS, NUMBERS = ["carrier", "origin"], ["distance", "delay"]
FILLED = FLIGHTS.assign(delay=FLIGHTS["delay"].fillna(0.0))


@pytest.fixture
def registered(tmp_path):
    """Examine a model against a frame, as it is registered; the answer is the package and the runtime."""

    def register(
        model: object, frame: pd.DataFrame = FLIGHTS, key: str | None = "flight_id", target: str | None = "late"
    ):
        artefact, reference = tmp_path / "model.joblib", tmp_path / "reference.csv"
        joblib.dump(model, artefact)
        frame.to_csv(reference, index=False)
        digest = "sha256:" + hashlib.sha256(artefact.read_bytes()).hexdigest()
        package = examine(artefact, format="joblib", digest=digest, reference=reference, key=key, target=target)
        package = Package.model_validate_json(package.model_dump_json())  # what the registry stores
        runtime = load(artefact, format="joblib", digest=digest)
        check_golden(runtime, package.signature, package.golden)
        return package, runtime

    return register


def encoder(transformer) -> ColumnTransformer:
    return ColumnTransformer([("words", transformer, WORDS), ("numbers", "passthrough", NUMBERS)])


def scored_again(package: Package, runtime, frame: pd.DataFrame):
    """The runtime's answer on the frame's CSV text."""
    data = frame.to_csv(index=False, header=False).encode()
    parsed = parse_csv(
        data, header=list(frame.columns), delimiter=",", signature=package.signature, key_column=None,
        first_row=1, first_line=2, max_cell_chars=1000,
    )  # fmt: skip
    assert not parsed.errors
    output = package.signature.output
    return runtime.predict(to_model_input(parsed.features, package.signature), class_from=output.class_from)


def test_a_logistic_pipeline(registered):
    model = make_pipeline(encoder(OneHotEncoder()), LogisticRegression(max_iter=2000)).fit(
        FILLED[WORDS + NUMBERS], FILLED["late"]
    )
    package, runtime = registered(model, FILLED)
    signature = package.signature
    assert [(column.name, column.type, column.nullable) for column in signature.columns] == [
        ("carrier", "category", False), ("origin", "category", True), ("distance", "integer", False), ("delay", "number", False),
    ]  # fmt: skip
    assert signature.columns[0].categories == ["AA", 'B"6', "D,L", "UA"]
    assert signature.columns[2].minimum == FILLED["distance"].min()
    assert (signature.key, signature.target) == ("flight_id", "late")
    output = signature.output
    assert (output.kind, output.classes, output.class_type) == ("classification", [0, 1], "integer")
    assert (output.positive, output.has_probability, output.class_from) == (1, True, "probabilities")
    scores = scored_again(package, runtime, FILLED)
    expected = model.predict_proba(FILLED[WORDS + NUMBERS])
    assert np.abs(scores.probabilities - expected).max() <= 1e-12
    assert np.array_equal(scores.prediction, model.predict(FILLED[WORDS + NUMBERS]))
    assert len(package.golden) == 50
    assert package.golden[0].prediction == scores.prediction[0]
    assert package.examined_with["scikit-learn"] == package.fitted_with["scikit-learn"]
    assert package.metrics["rows"] == ROWS
    assert package.metrics["accuracy"] == accuracy_score(FILLED["late"], scores.prediction)
    assert package.metrics["roc_auc"] == pytest.approx(roc_auc_score(FILLED["late"], expected[:, 1]), abs=1e-12)
    assert package.metrics["log_loss"] == pytest.approx(log_loss(FILLED["late"], expected), abs=1e-12)
    assert {"f1", "f1_positive", "precision_positive", "recall", "brier"} <= package.metrics.keys()


def test_gradient_boosting_with_nulls_and_string_classes(registered):
    target = FLIGHTS["late"].map({0: "on time", 1: "late"})
    model = make_pipeline(
        encoder(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
        HistGradientBoostingClassifier(max_iter=5),
    ).fit(FLIGHTS[WORDS + NUMBERS], target)
    package, runtime = registered(model, FLIGHTS.assign(late=target))
    assert package.signature.columns[3].nullable
    assert package.signature.output.classes == ["late", "on time"]
    assert package.signature.output.positive == "on time"
    scores = scored_again(package, runtime, FLIGHTS)
    assert np.array_equal(scores.probabilities, model.predict_proba(FLIGHTS[WORDS + NUMBERS]))
    assert "roc_auc" in package.metrics


def test_gradient_boosting_on_pandas_categories(registered):
    frame = FLIGHTS[WORDS + NUMBERS].astype({"carrier": "category", "origin": "category"})
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(frame, FLIGHTS["late"])
    package, runtime = registered(model)
    assert np.array_equal(scored_again(package, runtime, FLIGHTS).probabilities, model.predict_proba(frame))


def test_a_model_that_takes_only_categories(registered):
    class_of = FunctionTransformer(codes, validate=False)
    model = make_pipeline(class_of, LogisticRegression()).fit(FILLED[WORDS].astype("category"), FILLED["late"])
    package, _ = registered(model, FILLED[[*WORDS, "late"]], key=None)
    assert package.signature.frame == "category"


def codes(frame: pd.DataFrame) -> np.ndarray:
    return np.column_stack([frame[name].cat.codes for name in frame])


def test_a_multiclass_forest_on_an_array(registered):
    target = np.digitize(FILLED["delay"], [0.5, 1.5])
    model = RandomForestClassifier(5, random_state=0).fit(FILLED[NUMBERS].to_numpy(), target)
    package, runtime = registered(model, FILLED[["flight_id", *NUMBERS]].assign(late=target))
    assert package.signature.frame == "array"
    assert package.signature.output.classes == [0, 1, 2]
    assert package.signature.output.positive is None
    assert len(package.golden[0].probabilities) == 3
    assert np.array_equal(scored_again(package, runtime, FILLED).prediction, model.predict(FILLED[NUMBERS].to_numpy()))
    assert "roc_auc" not in package.metrics


@pytest.mark.parametrize("model", [LinearSVC(), SVC()], ids=["LinearSVC", "SVC"])
def test_a_classifier_without_probabilities(registered, model):
    model = make_pipeline(StandardScaler(), model).fit(FILLED[NUMBERS], FILLED["late"] == 1)
    package, _ = registered(model, FILLED.assign(late=FILLED["late"] == 1))
    assert package.signature.output.class_type == "boolean"
    assert package.signature.output.has_probability is False
    assert package.golden[0].probabilities is None
    assert {"accuracy", "f1_positive"} <= package.metrics.keys()
    assert "log_loss" not in package.metrics


def test_a_regressor(registered):
    model = LinearRegression().fit(FILLED[["distance"]], FILLED["delay"])
    package, _ = registered(model, FILLED, target="delay")
    assert package.signature.output.model_dump(exclude_none=True) == {
        "kind": "regression", "has_probability": False, "class_from": "predict",
    }  # fmt: skip
    assert package.metrics["r2"] == pytest.approx(model.score(FILLED[["distance"]], FILLED["delay"]))
    assert {"mae", "rmse"} <= package.metrics.keys()


def test_the_dict_of_model_preprocessor_and_names(registered):
    scaler = StandardScaler().fit(FILLED[NUMBERS].to_numpy())
    model = LogisticRegression().fit(scaler.transform(FILLED[NUMBERS].to_numpy()), FILLED["late"])
    package, _ = registered({"model": model, "preprocessor": scaler, "feature_names": NUMBERS}, FILLED)
    assert package.signature.names == NUMBERS


def test_missing_columns_are_all_named(registered):
    model = LogisticRegression().fit(FILLED[NUMBERS], FILLED["late"])
    with pytest.raises(InvalidPackage, match="'distance', 'delay'") as caught:
        registered(model, FILLED.rename(columns={"delay": "Delay", "distance": "miles"}))
    assert [problem.pointer for problem in caught.value.problems] == ["#/columns/distance", "#/columns/delay"]
    assert "did you mean 'Delay'" in caught.value.problems[1].detail


def test_a_reference_that_the_model_does_not_take_is_told_why(registered):
    model = LogisticRegression().fit(FILLED[NUMBERS], FILLED["late"])
    with pytest.raises(InvalidPackage, match=r"in any form.*ValueError"):
        registered(model, FILLED.assign(distance="far"))


class Moody(ClassifierMixin, BaseEstimator):
    """Its answer depends on the rows that are scored along."""

    def fit(self, X, y):  # noqa: N803 - scikit-learn's name
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):  # noqa: N803 - scikit-learn's name
        column = np.asarray(X)[:, 0]
        return self.classes_[(column > column.mean() - len(column)).astype(int)]


def test_a_model_that_looks_at_its_neighbours_is_refused(registered):
    with pytest.raises(InvalidPackage, match="depends on which rows"):
        registered(Moody().fit(FILLED[NUMBERS], FILLED["late"]), FILLED[[*NUMBERS, "late"]], key=None)


def test_what_is_no_single_classifier_or_regressor_is_refused(registered):
    with pytest.raises(InvalidPackage, match="neither a classifier nor a regressor"):
        registered(KMeans(2, n_init=1).fit(FILLED[NUMBERS]), FILLED)
    two = MultiOutputClassifier(LogisticRegression()).fit(
        FILLED[NUMBERS], FILLED[["late"]].assign(early=1 - FILLED["late"])
    )
    with pytest.raises(InvalidPackage, match="more than one output"):
        registered(two, FILLED)


def test_a_target_that_is_no_class_is_refused(registered):
    model = LogisticRegression().fit(FILLED[NUMBERS], FILLED["late"])
    with pytest.raises(InvalidPackage, match="expected one of 0, 1"):
        registered(model, FILLED, target="carrier")


def test_another_model_fails_the_golden_rows(registered):
    model = LogisticRegression().fit(FILLED[NUMBERS], FILLED["late"])
    package, runtime = registered(model, FILLED)
    runtime.model.intercept_ += 1e-6
    with pytest.raises(ArtefactRefused, match=r"golden row \d+ .* off by"):
        check_golden(runtime, package.signature, package.golden)
    runtime.model.intercept_ += 100
    with pytest.raises(ArtefactRefused, match="instead of"):
        check_golden(runtime, package.signature, package.golden)


def reference_of(tmp_path: Path, **columns: list[str]):
    """The columns that are inferred from text, with a model that takes anything."""
    path = tmp_path / "reference.csv"
    rows = zip(*columns.values(), strict=True)
    path.write_text("\ufeff" + ",".join(columns) + "\r\n" + "".join(",".join(row) + "\r\n" for row in rows))
    artefact = tmp_path / "any.joblib"
    joblib.dump(Constant().fit(None, [0, 1]), artefact)
    digest = "sha256:" + hashlib.sha256(artefact.read_bytes()).hexdigest()
    package = examine(artefact, format="joblib", digest=digest, reference=path, key=None, target=None)
    return {column.name: column for column in package.signature.columns}


class Constant(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):  # noqa: N803 - scikit-learn's name
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):  # noqa: N803 - scikit-learn's name
        return np.zeros(len(X), dtype=int)


def test_types_are_inferred_from_all_cells(tmp_path):
    many = 300
    columns = reference_of(
        tmp_path,
        code=["1", "2", "1"] * 100,
        zip=["00501"] * many,
        holes=["7", "", "NA"] * 100,
        price=["1", "2.0", "1e3"] * 100,
        big=["9007199254740993"] * many,
        flag=["true", "FALSE", ""] * 100,
        digit=["0", "1", "1"] * 100,
        word=["a", "NA", ""] * 100,
        mixed=["1", "2", "unknown"] * 100,
        free=[f"w{at % 101}" for at in range(many)],
        hundred=[f"w{at % 100}" for at in range(many)],
        empty=["", "NA", " "] * 100,
        unbounded=["1", "inf", "2"] * 100,
    )
    assert {name: (column.type, column.nullable) for name, column in columns.items()} == {
        "code": ("integer", False),
        "zip": ("integer", False),
        "holes": ("integer", True),
        "price": ("number", False),
        "big": ("number", False),
        "flag": ("boolean", True),
        "digit": ("integer", False),
        "word": ("category", True),
        "mixed": ("category", False),
        "free": ("text", False),
        "hundred": ("category", False),
        "empty": ("number", True),
        "unbounded": ("category", False),
    }
    assert columns["word"].categories == ["NA", "a"]
    assert (columns["price"].minimum, columns["price"].maximum) == (1.0, 1000.0)


def test_dates_become_timestamps_only_for_a_model_that_needs_them(tmp_path, registered):
    frame = pd.DataFrame({"when": pd.date_range("2013-01-01", periods=60).astype(str), "late": [0, 1] * 30})
    assert reference_of(tmp_path, when=frame["when"].tolist())["when"].type == "text"
    model = make_pipeline(FunctionTransformer(days, validate=False), LogisticRegression(max_iter=2000))
    model.fit(frame[["when"]].astype("datetime64[us]"), frame["late"])
    package, _ = registered(model, frame, key=None)
    assert package.signature.columns[0].type == "timestamp"


def days(frame: pd.DataFrame) -> np.ndarray:
    return frame["when"].dt.day.to_numpy().reshape(-1, 1)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no records"),
        (b"a,b\n", "no records"),
        (b"a,a\n1,2\n", "twice: a"),
        (b"a,b\n1\n", "line 2"),
        (b"a,b\n\xff,1\n", "UTF-8"),
        (b'a,b\n"1,2\n', "no records"),
    ],
)
def test_a_reference_that_cannot_be_read(tmp_path, content, told):
    path, artefact = tmp_path / "reference.csv", tmp_path / "any.joblib"
    path.write_bytes(content)
    joblib.dump(Constant().fit(None, [0, 1]), artefact)
    digest = "sha256:" + hashlib.sha256(artefact.read_bytes()).hexdigest()
    with pytest.raises(InvalidPackage, match=told):
        examine(artefact, format="joblib", digest=digest, reference=path, key=None, target=None)
