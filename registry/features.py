"""Which columns a model takes, and of which types: inferred from the reference, or as somebody edited them."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from errors import InvalidInput, InvalidPackage, Problem
from records.row_error import RowError
from registry.cells import moments, nulled
from registry.model_input import to_model_input
from registry.parse import Parsed
from registry.reference import Reference, infer_column, parse_reference
from registry.scores import Runtime, Scores
from registry.signature import Column, Signature, pointer_to
from registry.signature_file import EditedSignature

_FRAME_WORDS = {
    "object": "a DataFrame with strings",
    "category": "a DataFrame with categories",
    "array": "an array of floats",
}


def features_of(
    runtime: Runtime, sample: Reference, key: str | None, target: str | None, edited: EditedSignature | None
) -> tuple[Signature, Parsed, Scores]:
    """The signature, but for its output; the reference's features; and the model's answers to them.

    How the model wants its input is found by trying: the forms that its runtime names, and then, unless the signature
    is an edited one, once more with dates as timestamps.

    Raises:
        InvalidPackage: the reference or the edited signature lacks columns (all are named), a row of the reference does
            not suit the edited signature, or the model takes the reference in no form.
    """
    names = _names(runtime, sample, key, target)
    candidates = _inferred(sample, names) if edited is None else iter([_edited(sample, names, edited, runtime)])
    failures: list[str] = []
    for columns in candidates:
        for frame in runtime.frames(columns):
            signature = Signature(columns=columns, key=key, target=target, frame=frame)
            parsed = _parsed(sample, signature)
            try:
                scores = runtime.predict(to_model_input(parsed.features, signature))
            except Exception as exc:  # a model may raise anything; all of it is told below
                failures.append(f"as {_FRAME_WORDS[frame]}: {type(exc).__name__}: {exc}")
                continue
            if edited is not None:
                _check_nulls(runtime, signature, parsed.features)
            return signature, parsed, scores
    raise InvalidPackage(
        f"the model does not take the reference in any form; its columns were {', '.join(names)}. "
        + "; ".join(failures)
    )


def _names(runtime: Runtime, sample: Reference, key: str | None, target: str | None) -> list[str]:
    """What the model names as its columns, else all of the reference but key and target."""
    if key is not None and key not in sample.header:
        raise InvalidPackage(
            f"the key column '{key}' is not in the reference; its columns are {', '.join(sample.header)}"
        )
    names = runtime.columns(sample.header)
    if names is None:
        return [name for name in sample.header if name not in (key, target)]
    _check_names(names, sample.header, "the reference does not suit the model")
    return names


def _check_names(wanted: Sequence[str], present: Sequence[str], what: str) -> None:
    signature = Signature(columns=[Column(name=name, type="text") for name in wanted])
    try:
        signature.check_columns(present)
    except InvalidInput as exc:
        raise InvalidPackage(f"{what}: {exc}", exc.problems) from exc


def _inferred(sample: Reference, names: list[str]) -> Iterator[list[Column]]:
    """The columns with dates as text, as `read_csv` gives them, and, if there are any, with dates as timestamps."""
    columns = [infer_column(name, sample.columns[name]) for name in names]
    yield columns
    dated = [_as_timestamp(column, sample.columns[column.name]) for column in columns]
    if dated != columns:
        yield dated


def _as_timestamp(column: Column, texts: Any) -> Column:
    if column.type not in ("category", "text"):
        return column
    nullable = nulled(texts)
    timestamp = Column(name=column.name, type="timestamp", nullable=bool(nullable.null_count))
    return column if moments(timestamp, nullable)[1] else timestamp


def _edited(sample: Reference, names: list[str], edited: EditedSignature, runtime: Runtime) -> list[Column]:
    """The edited columns in the model's order, completed from the reference, which must suit them."""
    by_name = {column.name: column for column in edited.columns}
    if runtime.columns(sample.header) is None:
        names = list(by_name)  # a model that names no columns takes those of the signature, in their order
        _check_names(names, sample.header, "the reference does not suit the signature")
    _check_names(names, list(by_name), "the signature does not suit the model")
    extra = [name for name in by_name if name not in names]
    if extra:
        told = [Problem(f"the model takes no column '{name}'; remove it", pointer_to(name)) for name in extra]
        raise InvalidPackage(f"the signature has columns that the model does not take: {', '.join(extra)}", told)
    parsed = _parsed(sample, Signature(columns=[by_name[name] for name in names]))
    problems = [problem for name in names for problem in _outside(by_name[name], parsed.features.column(name))]
    if problems:
        raise InvalidPackage(_summary(problems), problems)
    return [_completed(by_name[name], parsed.features.column(name)) for name in names]


def _outside(column: Column, values: Any) -> Iterator[Problem]:
    """Where the reference itself is outside of the categories or the range that a column states."""
    if column.categories is not None:
        unknown = sorted(
            set(pc.drop_null(pc.unique(pc.cast(values, pa.string()))).to_pylist()) - set(column.categories)
        )
        for word in unknown:
            yield Problem(
                f"the reference holds '{word}', which is not among the categories of column '{column.name}'; "
                "add it to them, or correct the reference",
                pointer_to(column.name),
            )
    if column.type not in ("number", "integer"):
        return
    low, high = pc.min_max(values).as_py().values()
    for found, bound, beyond, word in (
        (low, column.minimum, operator.lt, "minimum"),
        (high, column.maximum, operator.gt, "maximum"),
    ):
        if found is not None and bound is not None and beyond(found, bound):
            yield Problem(
                f"the reference holds {found:g}, which is beyond the {word} {bound:g} of column '{column.name}'; "
                f"change the {word}, or correct the reference",
                pointer_to(column.name),
            )


def _completed(column: Column, values: Any) -> Column:
    """With the categories or the range of the reference where the edited column states none."""
    if column.type == "category" and column.categories is None:
        words = pc.drop_null(pc.unique(pc.cast(values, pa.string())))
        return column.model_copy(update={"categories": sorted(words.to_pylist())})
    if column.type in ("number", "integer"):
        low, high = pc.min_max(values).as_py().values()
        stated = {"minimum": column.minimum, "maximum": column.maximum}
        found = {"minimum": low, "maximum": high}
        return column.model_copy(update={name: found[name] for name, value in stated.items() if value is None})
    return column


def _check_nulls(runtime: Runtime, signature: Signature, features: Any) -> None:
    """Try the model on a null in each column that may be null and never is in the reference.

    Raises:
        InvalidPackage: it raises; every such column is named.
    """
    problems: list[Problem] = []
    for place, column in enumerate(signature.columns):
        values = features.column(place)
        if not column.nullable or values.null_count:
            continue
        row = features.slice(0, 1).set_column(place, column.name, pa.nulls(1, values.type))
        try:
            runtime.predict(to_model_input(row, signature))
        except Exception as exc:  # a model may raise anything
            detail = f"column '{column.name}' is nullable, but the model raises when it is empty"
            remedy = "set nullable to false, or let the model fill it in"
            problems.append(Problem(f"{detail} ({type(exc).__name__}: {exc}); {remedy}", pointer_to(column.name)))
    if problems:
        raise InvalidPackage(
            "the signature does not suit the model: " + "; ".join(each.detail for each in problems), problems
        )


def _parsed(sample: Reference, signature: Signature) -> Parsed:
    """The reference, every row of it.

    Raises:
        InvalidPackage: rows that the signature does not take; only an edited one does that.
    """
    parsed = parse_reference(sample, signature)
    if parsed.errors:
        by_column: dict[str, list[RowError]] = {}
        for error in parsed.errors:
            by_column.setdefault(error.column or "", []).append(error)
        problems = [_unparsed(column, errors) for column, errors in by_column.items()]
        raise InvalidPackage(_summary(problems), problems)
    return parsed


def _unparsed(column: str, errors: Sequence[RowError]) -> Problem:
    first = errors[0]
    return Problem(
        f"{len(errors)} rows of the reference do not parse, the first on line {first.line}: {first.message}; change the "
        "column's type in the signature, let it be nullable, or correct the reference",
        pointer_to(column),
    )


def _summary(problems: Sequence[Problem]) -> str:
    return "the reference does not suit the signature: " + "; ".join(problem.detail for problem in problems)
