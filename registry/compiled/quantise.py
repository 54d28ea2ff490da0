"""From an ONNX graph to one that multiplies large matrices as integers of 8 bits, a row at a time.

Each row that comes into such a product is rounded on a scale of its own, so that what it is answered depends on no other
row: sums of integers are exact, in whatever number of rows and on whatever processor. (`quantize_dynamic` of ONNX Runtime
has one scale for all rows of a call, and one row with a number far out takes the precision of all others.) Weights have a scale
for each column, and 7 bits, because a processor without VNNI adds two products of 8 and 8 bits in 16, which overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from registry.compiled.compile import NotCompilable
from registry.compiled.graph import Graph

#: A product with fewer inputs or outputs stays as it is: to round it saves next to nothing, and costs most of the accuracy where the
#: inputs are the model's own (measured: a largest difference of 0.05, and 0.01 without).
NARROWEST = 64
_TOP_WEIGHT = 63
#: Steps of the scale of a row: on both sides of 128, or above 0 where nothing is negative.
_SIGNED, _UNSIGNED = 127, 255
_NEVER_NEGATIVE = ("Relu", "Sigmoid", "Softmax")
#: From this version on operators take all axes from an input, before it some had them as an attribute.
_OLDEST, _AXES_ARE_INPUTS = 13, 18


def quantise(content: bytes) -> bytes:
    """The graph with its large products of constant weights in integers; all else, and its inputs and outputs, are as before.

    Raises:
        NotCompilable: it has no such product, or its operators are older than version 13.
    """
    model = onnx.load_model_from_string(content)
    version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if version < _OLDEST:
        raise NotCompilable(f"its operators are of version {version}, and {_OLDEST} is needed; export it anew")
    nodes, weights = list(model.graph.node), _constants(model.graph)
    made_by = {name: node.op_type for node in nodes for name in node.output}
    del model.graph.node[:]
    rounded = _Rounded(model.graph, axes_are_inputs=version >= _AXES_ARE_INPUTS)
    for node in nodes:
        factor = _factor(node, weights)
        if factor is None:
            model.graph.node.append(node)
        else:
            rounded.replace(node, factor, never_negative=made_by.get(node.input[0]) in _NEVER_NEGATIVE)
    if len(model.graph.node) == len(nodes):
        raise NotCompilable(f"it has no product with constant weights of {NARROWEST} by {NARROWEST} numbers or more")
    _drop_unused(model.graph)
    quantised: bytes = model.SerializeToString()
    return quantised


def _constants(graph: Any) -> dict[str, TensorProto]:
    """By name; none whose numbers are in another file, which a node that nothing uses might name."""
    constant = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    found = {**constant, **{each.name: each for each in graph.initializer}}
    return {name: each for name, each in found.items() if each.data_location != TensorProto.EXTERNAL}


def _factor(node: NodeProto, weights: Mapping[str, TensorProto]) -> npt.NDArray[Any] | None:
    """The weights (inputs, outputs) by which a node multiplies; None if it does not, or not in a way that we replace."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
        return None
    found: npt.NDArray[Any] = numpy_helper.to_array(weights[node.input[1]])
    if found.ndim != 2 or min(found.shape) < NARROWEST or found.dtype not in (np.float32, np.float64):
        return None
    stated = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if stated.get("transA") or stated.get("beta", 1.0) != 1.0:
        return None
    turned: npt.NDArray[Any] = found.T if stated.get("transB") else found
    return np.asarray(turned * found.dtype.type(stated.get("alpha", 1.0)))


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


class _Rounded:
    """Appends to a graph what stands for its products."""

    def __init__(self, proto: Any, *, axes_are_inputs: bool) -> None:
        self._graph = Graph(proto, names="quantised")
        self._axes_are_inputs = axes_are_inputs
        self._columns = self._graph.constant(np.array([1], np.int64))

    def replace(self, node: NodeProto, weights: npt.NDArray[Any], *, never_negative: bool) -> None:
        """Write X W, and for a Gemm X W + C, under the name of the node's output."""
        graph, double = self._graph, weights.dtype == np.float64
        features = graph.cast(node.input[0], TensorProto.FLOAT) if double else node.input[0]
        product = self._product(features, weights.astype(np.float32), never_negative)
        product = graph.cast(product, TensorProto.DOUBLE) if double else product
        if len(node.input) > 2 and node.input[2]:
            product = graph.add("Add", product, node.input[2])
        graph.proto.node.append(helper.make_node("Identity", [product], [node.output[0]], name=f"{product}_named"))

    def _product(self, features: str, weights: npt.NDArray[np.float32], never_negative: bool) -> str:
        graph, steps, zero = self._graph, *((_UNSIGNED, 0) if never_negative else (_SIGNED, 128))
        scale = self._scale(features, steps, never_negative)
        flat = graph.add("Squeeze", scale, self._columns)
        middle = graph.add("Expand", graph.constant(np.array([zero], np.uint8)), graph.add("Shape", flat))
        rows = graph.add("QuantizeLinear", features, flat, middle, axis=0)
        by_column = np.maximum(np.abs(weights).max(axis=0, keepdims=True), np.float32(1e-30)) / np.float32(_TOP_WEIGHT)
        whole = graph.constant(np.rint(weights / by_column).astype(np.int8))
        sums = graph.add("MatMulInteger", rows, whole, graph.constant(np.uint8(zero)))
        scaled = graph.add("Mul", graph.cast(sums, TensorProto.FLOAT), graph.constant(by_column))
        return graph.add("Mul", scaled, scale)

    def _scale(self, features: str, steps: int, never_negative: bool) -> str:
        """(n, 1) what a step is worth in each row; NaN where the row holds a NaN or an infinity, which has no answer."""
        graph = self._graph
        largest = self._over_columns("ReduceMax", features if never_negative else graph.add("Abs", features))
        step = graph.add(
            "Mul",
            graph.add("Max", largest, graph.constant(np.float32(1e-30))),
            graph.constant(np.float32(1 / steps)),
        )
        nothing = graph.add(
            "Mul",
            graph.add("ReduceSum", features, self._columns, keepdims=1),
            graph.constant(np.float32(0)),
        )
        return graph.add("Add", step, nothing)

    def _over_columns(self, operator: str, values: str) -> str:
        if self._axes_are_inputs:
            return self._graph.add(operator, values, self._columns, keepdims=1)
        return self._graph.add(operator, values, axes=[1], keepdims=1)
