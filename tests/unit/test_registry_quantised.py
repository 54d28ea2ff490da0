"""Quantised forms: kept only within what was stated and where they are faster; a row's answer depends on no other row."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from errors import ArtefactRefused
from registry.compiled import examined, provider
from registry.compiled.choice import choose
from registry.compiled.compile import NotCompilable
from registry.compiled.examined import Examined
from registry.compiled.quantise import quantise
from registry.compiled.record import Compiled, Form
from registry.examine import Package, examine
from registry.golden import check_golden, check_golden_within
from registry.onnx_runtime import session
from registry.parse import parse_csv
from registry.runtime import load, load_form
from registry.scores import Runtime
from registry.scoring import Scored, score

RNG = np.random.default_rng(5)
INPUTS = 80
COLUMNS = [f"c{place}" for place in range(20)]
WIDE = {"hidden_layer_sizes": (256, 256), "random_state": 0, "tol": 100.0, "n_iter_no_change": 3}
#: Here, where it does not cost the processor, this is taken for an accelerator: what it has no operator for runs on the processor.
ACCELERATOR = "AzureExecutionProvider"


def people(rows: int) -> pd.DataFrame:
    frame = pd.DataFrame(RNG.normal(size=(rows, len(COLUMNS))), columns=COLUMNS)
    frame["two"] = (frame["c0"] * frame["c1"] + frame["c2"] > 0).astype(int)
    frame["price"] = 500 + 100 * frame["c0"] + 30 * frame["c1"] * frame["c2"]
    return frame


TRAINING, FRESH = people(2_000), people(3_000)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a worker."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def network() -> Any:
    return make_pipeline(StandardScaler(), MLPClassifier(**WIDE)).fit(TRAINING[COLUMNS], TRAINING["two"])


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class House:
    """A folder with an artefact, its reference, and the forms that were stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package: Package
        self.original: Runtime

    def register(self, artefact: bytes, target: str, *, ending: str = "joblib", **options: Any) -> Compiled:
        path, reference = self.folder / f"model.{ending}", self.folder / "reference.csv"
        path.write_bytes(artefact)
        TRAINING[[*COLUMNS, target]].to_csv(reference, index=False)
        kind: Any = ending
        self.package = examine(
            path, format=kind, digest=digest_of(artefact), reference=reference, key=None, target=target,
            put=self.put, **{"wanted": "auto", **options},
        )  # fmt: skip
        self.original = load(path, format=kind, digest=digest_of(artefact))
        return self.package.compiled

    def put(self, content: bytes) -> str:
        digest = digest_of(content)
        (self.folder / digest).write_bytes(content)
        return digest

    def form(self, form: Form, digest: str | None = None) -> Runtime:
        package = self.package
        digest = digest or package.compiled.digest_of(form, "")
        return load_form(
            self.folder / digest, form, digest, compiled=package.compiled, original=self.original,
            signature=package.signature,
        )  # fmt: skip

    def scored(self, runtime: Runtime, frame: pd.DataFrame) -> Scored:
        data = frame[COLUMNS].to_csv(index=False, header=False).encode()
        parsed = parse_csv(
            data, header=COLUMNS, delimiter=",", signature=self.package.signature, key_column=None, first_row=1,
            first_line=2, max_cell_chars=1000,
        )  # fmt: skip
        return score(runtime, parsed, self.package.signature)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def dumped(model: Any, folder: Path) -> bytes:
    joblib.dump(model, folder / "dumped")
    return (folder / "dumped").read_bytes()


@pytest.fixture(params=["MatMul", "Gemm", "double", "old operators"])
def layers(request: pytest.FixtureRequest) -> bytes:
    """Two products with what is negative and what is not, as exporters write them."""
    kind = TensorProto.DOUBLE if request.param == "double" else TensorProto.FLOAT
    dtype = np.float64 if request.param == "double" else np.float32
    weights = [(RNG.normal(size=shape) / 5).astype(dtype) for shape in ((INPUTS, 96), (96, 64))]
    bias = [RNG.normal(size=each.shape[1]).astype(dtype) for each in weights]
    if request.param == "Gemm":
        nodes = [
            helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], transB=1, alpha=2.0),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w1", "b1"], ["y"], transB=1),
        ]
        weights = [each.T for each in weights]
    else:
        nodes = [
            helper.make_node("MatMul", ["x", "w0"], ["m"]),
            helper.make_node("Add", ["m", "b0"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w1"], ["n"]),
            helper.make_node("Add", ["n", "b1"], ["y"]),
        ]
    constants = [numpy_helper.from_array(np.ascontiguousarray(each), f"w{at}") for at, each in enumerate(weights)]
    constants += [numpy_helper.from_array(each, f"b{at}") for at, each in enumerate(bias)]
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", kind, [None, INPUTS])],
        [helper.make_tensor_value_info("y", kind, [None, 64])],
        constants,
    )
    version = 13 if request.param == "old operators" else 21
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def answers(content: bytes, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    found = session(content)
    kind = np.float64 if "double" in found.get_inputs()[0].type else np.float32
    return np.asarray(found.run(None, {"x": values.astype(kind)})[0])


def test_products_are_rounded_and_no_row_depends_on_another(layers: bytes) -> None:
    quantised = quantise(layers)
    operators = [node.op_type for node in onnx.load_model_from_string(quantised).graph.node]
    assert operators.count("MatMulInteger") == 2
    values = RNG.normal(size=(300, INPUTS))
    exact, found = answers(layers, values), answers(quantised, values)
    assert 0 < np.abs(found - exact).max() < 0.1 * exact.std()
    assert found.dtype == exact.dtype
    beside = values.copy()
    beside[0] = 1e6  # a row far out, which takes the precision of all others if they share a scale
    assert np.array_equal(answers(quantised, beside)[1:], found[1:])
    alone = np.concatenate([answers(quantised, values[[at]]) for at in range(20)])
    assert np.array_equal(alone, found[:20])


@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_what_has_no_answer_gets_none_and_harms_no_other_row(layers: bytes, strange: float) -> None:
    quantised, values = quantise(layers), RNG.normal(size=(20, INPUTS))
    found = answers(quantised, values)
    values[np.arange(5), np.arange(5) * 4] = strange
    beside = answers(quantised, values)
    assert not np.isfinite(beside[:5]).any()
    assert np.array_equal(beside[5:], found[5:])


def test_a_graph_without_products_is_refused(layers: bytes) -> None:
    model = onnx.load_model_from_string(layers)
    for each in list(model.graph.initializer):
        if each.name.startswith("w"):
            model.graph.input.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
            model.graph.initializer.remove(each)
    with pytest.raises(NotCompilable, match="no product with constant weights"):
        quantise(model.SerializeToString())


def test_no_other_file_is_read(layers: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a product that nothing uses, which ONNX Runtime drops before it would refuse it."""
    monkeypatch.chdir(tmp_path)
    model = onnx.load_model_from_string(layers)
    (tmp_path / "secret").write_bytes(bytes(4 * 64 * 64))
    elsewhere = helper.make_tensor("elsewhere", TensorProto.FLOAT, [64, 64], bytes(4 * 64 * 64), raw=True)
    onnx.external_data_helper.set_external_data(elsewhere, "secret")
    elsewhere.ClearField("raw_data")
    model.graph.initializer.append(elsewhere)
    model.graph.node.append(helper.make_node("MatMul", ["y", "elsewhere"], ["unused"]))
    operators = [each.op_type for each in onnx.load_model_from_string(quantise(model.SerializeToString())).graph.node]
    assert (operators.count("MatMulInteger"), operators.count("MatMul")) == (2, 1)


@pytest.mark.parametrize("target", ["two", "price"])
def test_a_network_is_quantised_within_what_was_stated(target: str, house: House, network: Any) -> None:
    model: Any = network
    if target == "price":
        model = make_pipeline(StandardScaler(), MLPRegressor(**WIDE)).fit(TRAINING[COLUMNS], TRAINING["price"])
    assert house.register(dumped(model, house.folder), target).quantised is None
    found = house.register(dumped(model, house.folder), target, within=0.05).quantised
    assert found is not None
    assert found.reason is None, found
    assert "bulk" in found.lanes
    expected = house.original.predict(TRAINING[COLUMNS])
    assert found.permitted == pytest.approx(0.05 if target == "two" else 0.05 * expected.prediction.std())
    single, int8 = found.tried["single"], found.tried["int8"]
    assert 0 < single.max_difference < int8.max_difference < found.permitted
    assert found.precision is not None
    kept = found.tried[found.precision]
    assert kept.seconds["bulk"].this < kept.seconds["bulk"].otherwise
    assert (found.rows, kept.seconds["interactive"].rows) == (len(TRAINING), 1)
    quantised, exact = (house.scored(each, FRESH) for each in (house.form(Form("quantised")), house.original))
    difference = np.abs(
        quantised.prediction - exact.prediction if target == "price" else quantised.probabilities - exact.probabilities
    ).max()
    assert 1e-10 < difference < 2 * found.permitted
    if target == "two":
        assert np.mean(quantised.prediction != exact.prediction) <= 0.05


def test_what_is_not_within_it_is_not_kept(house: House, network: Any) -> None:
    compiled = house.register(dumped(network, house.folder), "two", wanted="onnx", within=1e-12)
    found = compiled.quantised
    assert found is not None
    assert (found.lanes, found.digest, found.precision) == ([], None, None)
    assert "single: it differs by up to" in found.reason
    assert "; int8: it differs by up to" in found.reason
    assert [each.kind for each in compiled.forms("bulk")] == ["compiled"]


def test_more_rows_of_another_class_are_not_within_it(house: House, network: Any) -> None:
    """With all probabilities near 1/2 a small difference is another class for many."""
    unsure = joblib.load(io.BytesIO(dumped(network, house.folder)))
    unsure[-1].coefs_[-1][:] = RNG.normal(size=(256, 1)) / 1_000
    unsure[-1].intercepts_[-1][:] = 0
    second = unsure.predict_proba(TRAINING[COLUMNS])[:, 1]
    unsure[-1].intercepts_[-1][:] = -np.median(np.log(second / (1 - second)))
    found = house.register(dumped(unsure, house.folder), "two", within=4e-4).quantised
    assert found is not None
    int8 = found.tried["int8"]
    assert int8.max_difference < found.permitted
    assert int8.flips > 4e-4 * len(TRAINING)
    assert f"and {int8.flips} rows of 2,000 have another class" in int8.reason
    assert found.precision == "single"


def test_what_is_not_faster_is_not_kept(house: House, network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examined, "WORTH", 0.0)
    found = house.register(dumped(network, house.folder), "two", wanted="onnx", within=0.05).quantised
    assert found is not None
    assert (found.lanes, found.reason) == ([], "single: it is not faster; int8: it is not faster")


def test_a_model_without_layers_says_so(house: House) -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(TRAINING[COLUMNS], TRAINING["two"])
    found = house.register(dumped(forest, house.folder), "two", within=0.05).quantised
    assert found is not None
    assert found.lanes == []
    assert found.reason.startswith("single: it is no neural network; int8: it has no product with constant weights")


def test_what_is_not_compiled_is_not_quantised(house: House) -> None:
    class_from_votes = make_pipeline(StandardScaler(with_mean=False), Odd(**WIDE))
    class_from_votes.fit(TRAINING[COLUMNS], TRAINING["two"])
    found = house.register(dumped(class_from_votes, house.folder), "two", within=0.05).quantised
    assert found is not None
    assert found.reason == "there is no exact conversion of Odd"


class Odd(MLPClassifier):
    """A subclass may answer otherwise."""


def test_an_onnx_model_is_quantised_as_it_stands(house: House, network: Any) -> None:
    values = TRAINING[COLUMNS].to_numpy()
    content = to_onnx(network, values[:1].astype(np.float32), options={"zipmap": False}).SerializeToString()
    compiled = house.register(content, "two", ending="onnx", within=0.05)
    found = compiled.quantised
    assert found is not None
    assert list(found.tried) == ["int8"]
    assert found.tried["int8"].max_difference < 0.05
    assert compiled.reason == "it is an ONNX model as it stands"
    assert (found.lanes == []) == (found.reason == "int8: it is not faster")


def test_a_worker_takes_what_was_registered_and_nothing_else(house: House, network: Any) -> None:
    compiled = house.register(dumped(network, house.folder), "two", within=0.05)
    signature, golden, form = house.package.signature, house.package.golden, Form("quantised")
    permitted = compiled.deviation_of(form)
    assert permitted is not None
    check_golden_within(house.form(form), signature, golden, permitted)
    with pytest.raises(ArtefactRefused):
        check_golden(house.form(form), signature, golden)  # which is why there is the other one
    other = onnx.load_model_from_string((house.folder / compiled.digest_of(form, "")).read_bytes())
    weights = max(other.graph.initializer, key=lambda each: int(np.prod(each.dims)))
    values = numpy_helper.to_array(weights).copy()
    values[:20] = 0
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    damaged = house.put(other.SerializeToString())
    with pytest.raises(ArtefactRefused, match=r"the golden rows differ by up to .* are permitted"):
        check_golden_within(house.form(form, damaged), signature, golden, permitted)


def test_the_fastest_provider_is_chosen_if_that_is_by_enough() -> None:
    seconds: dict[str, tuple[float, float] | None] = {
        "close": (1.0, 0.95), "fast": (1.0, 0.5), "faster": (2.0, 0.8), "broken": None,
    }  # fmt: skip
    assert provider.fastest(list(seconds), seconds.__getitem__) == ("faster", 2.0, 0.8)
    assert provider.fastest(["close", "broken"], seconds.__getitem__) is None
    assert provider.fastest([], seconds.__getitem__) is None
    assert set(provider.offered()) <= set(onnxruntime.get_available_providers())
    assert not {"CPUExecutionProvider", ACCELERATOR} & set(provider.offered())


@pytest.fixture
def known(house: House, network: Any, monkeypatch: pytest.MonkeyPatch) -> Examined:
    """A network as it is examined; whatever an accelerator takes, it is worth it."""
    house.register(dumped(network, house.folder), "two")
    monkeypatch.setattr(examined, "WORTH", 100.0)
    package = house.package
    assert package.sample is not None
    return Examined(house.original, package.sample.features, package.sample.scores, package.signature, package.golden)


@pytest.mark.parametrize("within", [None, 0.05])
def test_what_an_accelerator_scores_is_recorded_and_answers_alike(
    house: House, known: Examined, within: float | None
) -> None:
    compiled = choose(known, wanted="onnx", put=house.put, within=within, accelerators=[ACCELERATOR])
    assert {lane: each.provider for lane, each in compiled.accelerated.items()} == {
        "interactive": ACCELERATOR, "bulk": ACCELERATOR,
    }  # fmt: skip
    kind = "compiled" if within is None else "quantised"
    first, second, *_ = compiled.forms("bulk")
    assert (first, second) == (Form(kind, ACCELERATOR), Form(kind))
    house.package = house.package.model_copy(update={"compiled": compiled})
    there, here = (house.scored(house.form(form), FRESH) for form in (first, second))
    assert there.probabilities.tolist() == here.probabilities.tolist()


def test_an_onnx_model_may_be_scored_by_an_accelerator_as_it_stands(
    house: House, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = TRAINING[COLUMNS].to_numpy()
    content = to_onnx(network, values[:1].astype(np.float32), options={"zipmap": False}).SerializeToString()
    monkeypatch.setattr(provider, "offered", lambda: [ACCELERATOR])
    monkeypatch.setattr("registry.compiled.choice.offered", lambda: [ACCELERATOR])
    monkeypatch.setattr(examined, "WORTH", 100.0)
    compiled = house.register(content, "two", ending="onnx")
    assert compiled.forms("bulk") == [Form("original", ACCELERATOR)]
    house.put(content)
    there = house.form(Form("original", ACCELERATOR), digest_of(content))
    assert house.scored(there, FRESH).prediction.tolist() == house.scored(house.original, FRESH).prediction.tolist()


def test_an_accelerator_that_is_absent_or_answers_otherwise_is_not_used(house: House, known: Examined) -> None:
    compiled = choose(known, wanted="onnx", put=house.put, accelerators=["CUDAExecutionProvider"])
    assert compiled.accelerated == {}
    with pytest.raises(ArtefactRefused, match="no CUDAExecutionProvider here"):
        session((house.folder / compiled.digest_of(Form("compiled"), "")).read_bytes(), "CUDAExecutionProvider")
    other = make_pipeline(StandardScaler(), MLPClassifier(**{**WIDE, "random_state": 1}))
    other.fit(TRAINING[COLUMNS], TRAINING["two"])
    house.register(dumped(other, house.folder), "two", wanted="onnx")
    answers_otherwise = (house.folder / house.package.compiled.digest_of(Form("compiled"), "")).read_bytes()
    contents: Any = {"compiled": answers_otherwise}
    scored: Any = dict.fromkeys(examined.ROWS, known.original)
    assert provider.accelerated(known, compiled, contents, scored, [ACCELERATOR]) == {}
