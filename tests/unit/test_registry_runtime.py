"""Loading a model: only what the registry vouches for, and the class that `predict` would give."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from errors import ArtefactRefused
from registry.runtime import SklearnRuntime, load, runtime_of

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(400, 3)).round(1)  # rounded, so that leaves and probabilities tie
Y = (X[:, 0] + RANDOM.normal(size=400) > 0).astype(int)
THREE = np.array(["early", "late", "on time"])[np.digitize(X[:, 0] + RANDOM.normal(size=400), [-0.5, 0.5])]


def saved(tmp_path: Path, content: object, format: str = "joblib") -> tuple[Path, str]:
    path = tmp_path / f"model.{format}"
    joblib.dump(content, path) if format == "joblib" else skops.io.dump(content, path)
    return path, "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_file_of_another_digest_is_refused_before_a_byte_is_unpickled(tmp_path):
    marker = tmp_path / "ran"
    path, digest = saved(tmp_path, Trap(marker))
    with pytest.raises(ArtefactRefused, match="digest"):
        load(path, format="joblib", digest="sha256:" + "0" * 64)
    with pytest.raises(ArtefactRefused, match="digest"):
        load(path, format="joblib", digest=digest.upper())
    assert not marker.exists()
    with pytest.raises(ArtefactRefused):  # the trap works: it is the digest that keeps it shut
        load(path, format="joblib", digest=digest)
    assert marker.exists()


def test_one_flipped_byte_is_refused(tmp_path):
    path, digest = saved(tmp_path, LogisticRegression().fit(X, Y))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactRefused, match=digest):
        load(path, format="joblib", digest=digest)


@pytest.mark.parametrize("format", ["joblib", "skops"])
def test_a_loaded_model_scores_as_the_fitted_one(tmp_path, format):
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    path, digest = saved(tmp_path, model, format)
    scores = load(path, format=format, digest=digest).predict(X)
    assert np.array_equal(scores.prediction, model.predict(X))
    assert np.array_equal(scores.probabilities, model.predict_proba(X))


def test_untrusted_types_in_skops_are_listed(tmp_path):
    path, digest = saved(tmp_path, RandomForestClassifier(2).fit(X, Y), "skops")
    with pytest.raises(ArtefactRefused, match=r"sklearn\.tree\._tree\.Tree"):
        load(path, format="skops", digest=digest)


@pytest.fixture
def older(monkeypatch):
    """What is saved with this was fitted with scikit-learn 1.0.9, as far as the file can say."""

    def save(tmp_path: Path, format: str) -> tuple[Path, str]:
        with monkeypatch.context() as patched:
            patched.setattr("sklearn.base.__version__", "1.0.9")
            return saved(tmp_path, LogisticRegression().fit(X, Y), format)

    return save


@pytest.mark.parametrize("format", ["joblib", "skops"])
def test_another_scikit_learn_is_refused_unless_allowed(tmp_path, older, format):
    path, digest = older(tmp_path, format)
    with pytest.raises(ArtefactRefused, match=rf"1\.0\.9.*{re.escape(sklearn.__version__)}.*--allow-version-mismatch"):
        load(path, format=format, digest=digest)
    runtime = load(path, format=format, digest=digest, mismatch_allowed=True)
    assert runtime.fitted_with == {"scikit-learn": "1.0.9"}
    assert np.array_equal(runtime.predict(X).prediction, LogisticRegression().fit(X, Y).predict(X))


def test_the_scikit_learn_of_the_fit_is_told(tmp_path):
    path, digest = saved(tmp_path, LogisticRegression().fit(X, Y))
    assert load(path, format="joblib", digest=digest).fitted_with == {"scikit-learn": sklearn.__version__}


def test_a_forest_that_threads_add_up_answers_the_same_each_time():
    forest = RandomForestClassifier(60, max_depth=4, n_jobs=4, random_state=0).fit(X, Y)
    runtime = SklearnRuntime(forest)
    assert len({runtime.predict(X).probabilities.tobytes() for _ in range(12)}) == 1
    assert len({forest.predict_proba(X).tobytes() for _ in range(12)}) > 1, "this is what the runtime is there for"


def test_a_zip_that_unpacks_to_far_too_much_is_refused(tmp_path):
    path = tmp_path / "bomb.skops"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros.npy", "w") as member:
        for _ in range(1100):
            member.write(bytes(1 << 20))
    with pytest.raises(ArtefactRefused, match="far more than its"):
        load(path, format="skops", digest="sha256:" + hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"", pickle.dumps({"weights": [1, 2]}), pickle.dumps([1])])
@pytest.mark.parametrize("format", ["joblib", "skops"])
def test_what_is_no_model_is_refused(tmp_path, content, format):
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(ArtefactRefused):
        load(path, format=format, digest="sha256:" + hashlib.sha256(content).hexdigest())


QUICK = [
    LogisticRegression(),
    RandomForestClassifier(4, max_depth=3, random_state=0),
    HistGradientBoostingClassifier(max_iter=3),
    GradientBoostingClassifier(n_estimators=3),
    DecisionTreeClassifier(max_depth=2),
    GaussianNB(),
    MLPClassifier((2,), max_iter=5, random_state=0),
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("target", [Y, THREE], ids=["binary", "three"])
@pytest.mark.parametrize("model", QUICK, ids=lambda model: type(model).__name__)
def test_the_class_read_off_the_probabilities_is_that_of_predict(model, target):
    model = make_pipeline(StandardScaler(), model).fit(X, target)
    runtime = SklearnRuntime(model)
    assert runtime.takes_class_from_probabilities()
    scores = runtime.predict(X, class_from="probabilities")
    assert np.array_equal(scores.prediction, model.predict(X))
    assert np.array_equal(scores.probabilities, model.predict_proba(X))


def test_a_tie_is_decided_by_predict():
    model = LogisticRegression().fit(X, Y)
    model.coef_, model.intercept_ = np.zeros((1, 3)), np.array([1e-17])  # probabilities 0.5 and 0.5, decision above 0
    assert model.predict_proba(X)[0].tolist() == [0.5, 0.5]
    assert SklearnRuntime(model).predict(X, class_from="probabilities").prediction.tolist() == model.predict(X).tolist()
    assert set(model.predict(X)) == {1}


def test_a_tuned_threshold_needs_predict():
    model = FixedThresholdClassifier(LogisticRegression(), threshold=0.2).fit(X, Y)
    assert not SklearnRuntime(model).takes_class_from_probabilities()
    assert np.array_equal(SklearnRuntime(model).predict(X).prediction, model.predict(X))
    assert (model.predict(X) != model.predict_proba(X).argmax(axis=1)).any()


def test_a_subclass_may_predict_as_it_likes():
    contrary = type("LogisticRegression", (LogisticRegression,), {})
    assert not SklearnRuntime(contrary().fit(X, Y)).takes_class_from_probabilities()


def test_models_without_probabilities():
    for model in (LinearSVC().fit(X, THREE), LinearRegression().fit(X, Y)):
        scores = SklearnRuntime(model).predict(X)
        assert scores.probabilities is None
        assert np.array_equal(scores.prediction, model.predict(X))


def test_the_dict_of_model_preprocessor_and_names():
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    scaler = StandardScaler().fit(frame)
    scaled = pd.DataFrame(scaler.transform(frame), columns=["p", "q", "r"])
    for fitted_on in (scaled, scaled.to_numpy()):
        model = CalibratedClassifierCV(GaussianNB(), cv=2).fit(fitted_on, Y)
        runtime = runtime_of({"model": model, "preprocessor": scaler, "feature_names": ["a", "b", "c"]})
        assert np.array_equal(runtime.predict(frame).probabilities, model.predict_proba(fitted_on))
