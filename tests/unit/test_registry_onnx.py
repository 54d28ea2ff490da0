"""ONNX models: which columns become which tensor, which probability belongs to which class, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from errors import ArtefactRefused, InvalidPackage
from registry.examine import Package, check_golden, examine
from registry.golden import score_golden
from registry.runtime import load

RANDOM = np.random.default_rng(8)
ROWS = 120
FRAME = pd.DataFrame(
    {
        "id": [f"r{at}" for at in range(ROWS)],
        "trip length": RANDOM.normal(50, 20, ROWS).round(2),
        "visits": RANDOM.integers(0, 30, ROWS),
        "seg-ment": RANDOM.choice(np.array(["gold", "new", None], dtype=object), ROWS),
    }
)
NUMBERS = ["trip length", "visits"]
TWO = (FRAME["trip length"] > 50).astype(int)
THREE = np.array(["low", "mid", "top"])[np.digitize(FRAME["trip length"], [40, 60])]
NO_ZIPMAP = {"zipmap": False}


def logistic(target: Any, **metadata: Any) -> onnx.ModelProto:
    model = LogisticRegression(max_iter=2000).fit(FRAME[NUMBERS].to_numpy(), target)
    proto = to_onnx(model, FRAME[NUMBERS].to_numpy()[:1], options=NO_ZIPMAP)
    helper.set_model_props(proto, {name: json.dumps(value) for name, value in metadata.items()})
    return proto


def examined(
    tmp_path: Path, model: onnx.ModelProto | bytes, frame: pd.DataFrame, target: str | None = "truth"
) -> Package:
    """The package, when a worker would take it."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    artefact, reference = tmp_path / "model.onnx", tmp_path / "reference.csv"
    artefact.write_bytes(content)
    frame.to_csv(reference, index=False)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    package = examine(artefact, format="onnx", digest=digest, reference=reference, key="id", target=target)
    check_golden(load(artefact, format="onnx", digest=digest), package.signature, package.golden, package.examined_with)
    return package


def test_one_tensor_takes_the_columns_in_the_order_of_the_reference(tmp_path: Path) -> None:
    frame = FRAME[["id", *NUMBERS]].assign(truth=TWO)
    package = examined(tmp_path, logistic(TWO), frame)
    assert (package.signature.names, package.signature.frame) == (NUMBERS, "array")
    assert package.signature.output is not None
    assert (package.signature.output.classes, package.signature.output.has_probability) == ([0, 1], True)
    assert package.fitted_with == {"producer": "skl2onnx"}
    assert package.metrics["accuracy"] > 0.9
    with pytest.raises(InvalidPackage, match="takes 2 columns, here are 3"):
        examined(tmp_path, logistic(TWO), frame.assign(more=1))
    named = examined(tmp_path, logistic(TWO, feature_names=NUMBERS), frame.assign(more=1)[["more", *frame.columns]])
    assert named.signature.names == NUMBERS


def test_a_tensor_per_column_is_found_by_its_name(tmp_path: Path) -> None:
    encoded = ColumnTransformer(
        [("words", OneHotEncoder(handle_unknown="ignore"), ["seg-ment"]), ("rest", "passthrough", NUMBERS)]
    )
    inputs = FRAME[["seg-ment", *NUMBERS]].fillna({"seg-ment": np.nan})
    model = make_pipeline(encoded, LogisticRegression(max_iter=2000)).fit(inputs, THREE)
    types = [("seg-ment", StringTensorType([None, 1])), ("trip length", FloatTensorType([None, 1]))]
    proto = to_onnx(model, initial_types=[*types, ("visits", Int64TensorType([None, 1]))])
    package = examined(tmp_path, proto, FRAME.assign(truth=THREE)[["truth", "visits", "seg-ment", "trip length", "id"]])
    assert [(column.name, column.type) for column in package.signature.columns] == [
        ("seg-ment", "category"), ("trip length", "number"), ("visits", "integer"),
    ]  # fmt: skip
    assert package.signature.output is not None
    assert package.signature.output.classes == ["low", "mid", "top"]
    spread = [int(row.inputs.rpartition(",")[2]) for row in package.golden]
    assert len(spread) == 50
    expected = model.predict_proba(inputs)  # nulls among them
    places = np.linspace(0, ROWS - 1, 50).round().astype(int)
    found = np.array([row.probabilities for row in package.golden])
    assert np.abs(found - expected[places]).max() < 1e-5


def test_whole_numbers_and_nulls_do_not_go_together(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(FRAME[NUMBERS], FRAME["visits"])
    types = [("trip length", FloatTensorType([None, 1])), ("visits", Int64TensorType([None, 1]))]
    content = to_onnx(model, initial_types=types).SerializeToString()
    package = examined(tmp_path, content, FRAME[["id", *NUMBERS]], target=None)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    loaded = load(tmp_path / "model.onnx", format="onnx", digest=digest)
    column = package.signature.columns[1].model_copy(update={"nullable": True})
    nullable = package.signature.model_copy(update={"columns": [package.signature.columns[0], column]})
    assert len(score_golden(loaded, nullable, ["1.5,2", "2.5,3"]).rows) == 2
    with pytest.raises(ArtefactRefused, match="whole numbers without nulls"):
        score_golden(loaded, nullable, ["1.5,2", "2.5,"])


def test_classes_that_the_reference_does_not_show_must_be_told(tmp_path: Path) -> None:
    frame = FRAME[["id", *NUMBERS]].assign(truth=THREE)
    package = examined(tmp_path, logistic(THREE), frame)
    assert package.signature.output is not None
    assert package.signature.output.classes == ["low", "mid", "top"]
    low = frame[frame["truth"] == "low"]
    with pytest.raises(InvalidPackage, match=r"3 probabilities, but the reference shows 1 classes.*`classes`"):
        examined(tmp_path, logistic(THREE), low)
    told = examined(tmp_path, logistic(THREE, classes=["low", "mid", "top"]), low)
    assert told.signature.output is not None
    assert told.signature.output.classes == ["low", "mid", "top"]
    with pytest.raises(ArtefactRefused, match="expected a JSON list"):
        examined(tmp_path, logistic(THREE, classes="low"), frame)


def test_labels_in_another_order_than_probabilities_are_refused(tmp_path: Path) -> None:
    proto = logistic(TWO)
    labels = next(each for each in proto.graph.initializer if numpy_helper.to_array(each).tolist() == [0, 1])
    labels.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(labels)[::-1], labels.name))
    with pytest.raises(InvalidPackage, match="contradict the order"):
        examined(tmp_path, proto, FRAME[["id", *NUMBERS]].assign(truth=TWO))


def test_decision_values_are_no_probabilities(tmp_path: Path) -> None:
    model = LinearSVC().fit(FRAME[NUMBERS].to_numpy(), THREE)
    proto = to_onnx(model, FRAME[NUMBERS].to_numpy(np.float32)[:1])
    package = examined(tmp_path, proto, FRAME[["id", *NUMBERS]].assign(truth=THREE))
    assert package.signature.output is not None
    assert package.signature.output.has_probability is False
    assert package.golden[0].probabilities is None


def plain(inputs: list[int | str], outputs: list[int | str]) -> bytes:
    """A model whose output is its input, of these shapes."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", inputs), ("y", outputs))
    ]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cannot be loaded"),
        (b"\x89PNG\r\n\x1a\n", "cannot be loaded"),
        (plain([1, 2], [1, 2]), "free first axis"),
        (plain(["n", 2, 2], ["n", 2, 2]), "free first axis"),
        (plain(["n", 2], ["n", 2]), "expected labels"),
    ],
)
def test_what_cannot_score_a_table_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(ArtefactRefused, match=told):
        examined(tmp_path, content, FRAME[["id", *NUMBERS]], target=None)
