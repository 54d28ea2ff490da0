"""The nodes of an ONNX graph under construction, in double precision but for the layers of a network, where that is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, TensorProto, helper, numpy_helper

ML = "ai.onnx.ml"
#: TreeEnsemble in double precision came with version 5 of the operators for machine learning.
OPSETS = {"": 21, ML: 5}
IR_VERSION = 10


class Graph:
    """Appends to a graph; each method returns the name of what it computes.

    Args:
        single: the layers of a neural network are to be in single precision, which is what can be quantised.
        names: what those of nodes begin with, so that none is mistaken for one that somebody else has given.
    """

    def __init__(self, proto: GraphProto, *, single: bool = False, names: str = "scorehouse") -> None:
        self.proto = proto
        self.single = single
        self._names = names

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = self._name(operator)
        self.proto.node.append(helper.make_node(operator, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, values: npt.ArrayLike) -> str:
        name = self._name("constant")
        self.proto.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def input(self, name: str, type: int, width: int) -> str:
        self.proto.input.append(helper.make_tensor_value_info(name, type, [None, width]))
        return name

    def output(self, computed: str, name: str, width: int) -> None:
        self.proto.node.append(helper.make_node("Identity", [computed], [name], name=name))
        self.proto.output.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, width]))

    def cast(self, name: str, type: int) -> str:
        return self.add("Cast", name, to=type)

    def in_single_precision(self, name: str) -> str:
        """Rounded to single precision and back, which is what the trees of scikit-learn's forests compare."""
        return self.cast(self.cast(name, TensorProto.FLOAT), TensorProto.DOUBLE)

    def both_classes(self, positive: str) -> str:
        """(n, 2) from the probability (n, 1) of the second class."""
        negative = self.add("Sub", self.constant(np.ones((1, 1))), positive)
        return self.add("Concat", negative, positive, axis=1)

    def _name(self, what: str) -> str:
        return f"{self._names}_{what}_{len(self.proto.node) + len(self.proto.initializer)}"
