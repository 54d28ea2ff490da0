"""A scikit-learn model whose rows are scored by its compiled form, and by itself where that might answer otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from registry.compiled.order import SORTED_FROM, alike
from registry.compiled.record import Compiled, Form, Guards
from registry.model_input import objects, single, to_model_input
from registry.onnx_runtime import NULL_TEXT, OnnxRuntime, session
from registry.scores import Kind, Runtime, Scores, merged
from registry.signature import Column, Frame, Signature
from registry.sklearn_runtime import SklearnRuntime, most_probable

#: The output of a compiled form.
OUTPUT = "scores"
#: Numbers that are larger belong to the original: some models refuse what single precision cannot hold.
LARGEST = 1e30


def input_name(place: int) -> str:
    """Of the signature's column at `place`."""
    return f"column_{place}"


@dataclass(frozen=True)
class Batch:
    """Features (n rows), the same as tensors, and which rows (n,) are the original's."""

    features: Any
    tensors: dict[str, npt.NDArray[Any]]
    apart: npt.NDArray[np.bool_]

    def __getitem__(self, rows: slice) -> Batch:
        features = self.features.slice(rows.start, rows.stop - rows.start)
        return Batch(features, {name: tensor[rows] for name, tensor in self.tensors.items()}, self.apart[rows])

    def take(self, rows: npt.NDArray[np.intp]) -> Batch:
        features = self.features.take(pa.array(rows))
        return Batch(features, {name: tensor[rows] for name, tensor in self.tensors.items()}, self.apart[rows])


def opened(form: Form, content: bytes, original: Runtime, compiled: Compiled, signature: Signature) -> Runtime:
    """A form of the original whose graph is `content`; an ONNX model's forms are ONNX models themselves.

    Raises:
        ArtefactRefused: its provider is not there.
    """
    if not isinstance(original, SklearnRuntime):
        return OnnxRuntime(content, form.provider)
    sorted_by = compiled.sorted_by if form.kind == "compiled" else ()
    return CompiledRuntime(original, content, signature, compiled.guards, sorted_by, provider=form.provider)


class CompiledRuntime(Runtime):
    """Answers as its original does: numbers within 1e-10, classes exactly, since ties are the original's too.

    A quantised graph answers within what was stated at the registration instead.

    Args:
        sorted_by: numbers by which many rows are put in order before they are scored.
        provider: of an accelerator; None: on the processor.
    """

    def __init__(
        self,
        original: SklearnRuntime,
        content: bytes,
        signature: Signature,
        guards: Guards,
        sorted_by: Sequence[str] = (),
        *,
        provider: str | None = None,
    ) -> None:
        self._original = original
        self._signature = signature
        self._session = session(content, provider)
        self._takes = {each.name for each in self._session.get_inputs()}
        self._guards = guards
        places = {column.name: place for place, column in enumerate(signature.columns)}
        self._sorted_by = [input_name(places[name]) for name in sorted_by]
        self.name, self.classes, self.fitted_with = original.name, original.classes, original.fitted_with
        self.has_probability = original.has_probability

    def model_input(self, features: Any, signature: Signature) -> Batch:
        tensors, apart = {}, np.zeros(features.num_rows, dtype=bool)
        for place, column in enumerate(signature.columns):
            values = single(features.column(column.name))
            if column.name in self._guards.null and values.null_count:
                apart |= pc.is_null(values).to_numpy(zero_copy_only=False)
            if column.type in ("category", "text"):
                tensor = objects(values, NULL_TEXT)
                if column.name in self._guards.unseen:
                    known = pc.is_in(
                        pc.cast(values, pa.string()), pa.array([*(column.categories or ()), None], pa.string())
                    )
                    apart |= ~known.to_numpy(zero_copy_only=False)
            else:
                tensor = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
                apart |= np.abs(tensor) > LARGEST
            tensors[input_name(place)] = tensor.reshape(-1, 1)
        return Batch(features, tensors, apart)

    def predict(self, model_input: Any, *, class_from: Literal["probabilities", "predict"] = "predict") -> Scores:
        del class_from  # only what may be read off the probabilities is compiled
        batch: Batch = model_input
        if not batch.apart.any():
            return self._own(batch)
        own, apart = np.flatnonzero(~batch.apart), np.flatnonzero(batch.apart)
        theirs = self._originals(batch, apart)
        if not own.size:
            return theirs
        return merged(self._own(batch.take(own)), own, theirs, apart)

    def answers(self, batch: Batch) -> npt.NDArray[np.float64]:
        """What the graph alone answers to n rows: probabilities (n, k), or (n, 1) for a regression."""
        tensors = {name: tensor for name, tensor in batch.tensors.items() if name in self._takes}
        if not self._sorted_by or len(batch.apart) < SORTED_FROM:
            return self._run(tensors)
        order = alike([batch.tensors[name][:, 0] for name in self._sorted_by])
        found = self._run({name: tensor[order] for name, tensor in tensors.items()})
        answers = np.empty_like(found)
        answers[order] = found
        return answers

    def _run(self, tensors: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        (found,) = self._session.run([OUTPUT], tensors)
        return np.asarray(found)

    def kind(self) -> Kind | None:
        return self._original.kind()

    def columns(self, header: Sequence[str]) -> list[str] | None:
        return self._original.columns(header)

    def frames(self, columns: Sequence[Column]) -> list[Frame]:
        return self._original.frames(columns)

    def libraries(self) -> dict[str, str]:
        return self._original.libraries()

    def takes_class_from_probabilities(self) -> bool:
        return True

    def _own(self, batch: Batch) -> Scores:
        """Of rows that are the compiled form's; those that tie are the original's all the same."""
        answers = self.answers(batch)
        if self.classes is None:
            return Scores(answers[:, 0], None)
        return Scores(
            most_probable(self.classes, answers, lambda ties: self._originals(batch, ties).prediction), answers
        )

    def _originals(self, batch: Batch, rows: npt.NDArray[np.intp]) -> Scores:
        features = batch.features.take(pa.array(rows))
        return self._original.predict(to_model_input(features, self._signature), class_from="probabilities")
