"""From a fitted scikit-learn pipeline to an ONNX graph that answers the same in double precision, only faster.

The preprocessing is skl2onnx's work, the estimator ours (`registry.compiled.heads`), because what converters write for
estimators is in single precision. Whether the two do answer the same is for `registry.compiled.parity` to find out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline

from registry.compiled.graph import IR_VERSION, OPSETS, Graph
from registry.compiled.heads import head_of
from registry.compiled.runtime import OUTPUT, input_name
from registry.estimator import taken_apart
from registry.signature import Column, Signature
from registry.sklearn_runtime import SklearnRuntime

_WORDS = ("category", "text")


class NotCompilable(Exception):
    """There is something in the model that cannot be written as ONNX, or not exactly; the message says what."""


def compile_model(runtime: SklearnRuntime, signature: Signature, *, single: bool = False) -> bytes:
    """An ONNX file whose output `scores` is probabilities (n, k), or the value (n, 1) of a regression.

    Its inputs are `column_0`, `column_1` …, of the signature's columns in their order, each (n, 1): strings for categories
    and texts, where a null is `nan`, double for all else.

    Args:
        single: the layers of a neural network in single precision.

    Raises:
        NotCompilable: some part of it has no counterpart.
    """
    steps, estimator = parts(runtime)
    head = head_of(estimator)
    if head is None:
        raise NotCompilable(f"there is no exact conversion of {type(estimator).__name__}")
    if signature.frame == "category" or any(column.type == "timestamp" for column in signature.columns):
        raise NotCompilable("there is no conversion of pandas categories and timestamps")
    output = signature.output
    if output is None or (output.kind == "classification" and output.class_from != "probabilities"):
        raise NotCompilable("its classes are not its most probable ones")
    try:
        model = _preprocessing(steps, signature) if steps else _columns_side_by_side(signature.columns)
        graph = Graph(model.graph, single=single)
        scores = head(graph, _features(model), estimator)
    except NotCompilable:
        raise
    except Exception as exc:  # converters raise anything
        raise NotCompilable(f"it has no conversion ({type(exc).__name__}: {exc})") from exc
    del model.graph.output[:]
    graph.output(scores, OUTPUT, len(output.classes) if output.classes else 1)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in OPSETS.items())
    model.ir_version = IR_VERSION
    content: bytes = model.SerializeToString()
    return content


def parts(runtime: SklearnRuntime) -> tuple[list[Any], Any]:
    """The transformers in their order, and the estimator."""
    transformers, estimator = taken_apart(runtime.model)
    return (transformers if runtime.preprocessor is None else [runtime.preprocessor, *transformers]), estimator


def _preprocessing(steps: Sequence[Any], signature: Signature) -> ModelProto:
    from skl2onnx import convert_sklearn  # noqa: PLC0415 - takes a second
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType  # noqa: PLC0415

    columns = signature.columns
    if signature.frame == "array":
        types = [("features", DoubleTensorType([None, len(columns)]))]
    else:
        types = [
            (column.name, (StringTensorType if column.type in _WORDS else DoubleTensorType)([None, 1]))
            for column in columns
        ]
    pipeline = Pipeline([(f"step_{place}", step) for place, step in enumerate(steps)])
    model: ModelProto = convert_sklearn(
        pipeline,
        initial_types=types,
        target_opset={"": OPSETS[""], "ai.onnx.ml": 3},
        custom_conversion_functions={SimpleImputer: _imputer},
        custom_shape_calculators={SimpleImputer: _imputer_shape},
    )
    _keep_precision(model)
    if signature.frame == "array":
        _spread(model, len(columns))
    else:
        _rename_inputs(model, [name for name, _ in types])
    return model


def _imputer_shape(operator: Any) -> None:
    from skl2onnx.common.data_types import DoubleTensorType  # noqa: PLC0415

    operator.outputs[0].type = DoubleTensorType([None, operator.raw_operator.statistics_.size])


def _imputer(scope: Any, operator: Any, container: Any) -> None:
    """Numbers in double precision: the operator `Imputer` of ONNX has single precision only."""
    from skl2onnx.operator_converters.common import concatenate_variables  # noqa: PLC0415

    imputer = operator.raw_operator
    nan_is_missing = isinstance(imputer.missing_values, float) and np.isnan(imputer.missing_values)
    if imputer.statistics_.dtype.kind != "f" or not nan_is_missing or imputer.add_indicator:
        raise NotCompilable("there is a conversion of SimpleImputer for missing numbers only")
    whole = concatenate_variables(scope, operator.inputs, container)
    fill, missing = scope.get_unique_variable_name("fill"), scope.get_unique_variable_name("missing")
    container.add_initializer(fill, TensorProto.DOUBLE, [1, imputer.statistics_.size], imputer.statistics_.tolist())
    container.add_node("IsNaN", [whole], [missing], name=scope.get_unique_operator_name("IsNaN"), op_version=20)
    container.add_node(
        "Where", [missing, fill, whole], [operator.outputs[0].full_name], name=scope.get_unique_operator_name("Where")
    )


def _keep_precision(model: ModelProto) -> None:
    """Columns side by side as they are: `FeatureVectorizer`, which stands before a scaler of them, has single precision only."""
    for node in model.graph.node:
        if node.op_type == "FeatureVectorizer":
            node.CopyFrom(helper.make_node("Concat", node.input, node.output, name=node.name, axis=1))


def _rename_inputs(model: ModelProto, names: Sequence[str]) -> None:
    """By their place, since a converter spells them in its own way; inputs that nothing takes are left out."""
    given = [each.name for each in model.graph.input]
    if len(given) != len(names):
        raise NotCompilable("the conversion leaves columns out")
    renamed = {name: input_name(place) for place, name in enumerate(given)}
    for each in model.graph.input:
        each.name = renamed[each.name]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)


def _spread(model: ModelProto, width: int) -> None:
    """One input per column in place of the one that holds them all."""
    (whole,) = [each.name for each in model.graph.input]
    del model.graph.input[:]
    names = [input_name(place) for place in range(width)]
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1]) for name in names)
    model.graph.node.insert(0, helper.make_node("Concat", names, [whole], name="columns", axis=1))


def _columns_side_by_side(columns: Sequence[Column]) -> ModelProto:
    """All columns as one tensor, which is what an estimator without preprocessing takes."""
    if any(column.type in _WORDS for column in columns):
        raise NotCompilable("the estimator takes strings itself")
    graph = Graph(helper.make_graph([], "scorehouse", [], []))
    names = [graph.input(input_name(place), TensorProto.DOUBLE, 1) for place in range(len(columns))]
    together = graph.add("Concat", *names, axis=1)
    graph.output(together, "features", len(columns))
    return helper.make_model(graph.proto)


def _features(model: ModelProto) -> str:
    (output,) = model.graph.output
    if output.type.tensor_type.elem_type != TensorProto.DOUBLE:
        raise NotCompilable("its preprocessing has a conversion in single precision only")
    return str(output.name)
