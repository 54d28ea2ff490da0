"""The model card: what was trained on what, how well it does and how that was found out, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from monitoring.intervals import Metric
from registry.signature import Column
from training.target import Target

#: By these a person judges; the others stand in the JSON too.
_FIRST = ("accuracy", "roc_auc", "log_loss", "brier", "ece", "f1", "mae", "rmse", "r2")


@dataclass(frozen=True)
class Card:
    """All that is told of a training. `metrics` are those of the hold-out, with 95 % intervals."""

    model: str
    trained_at: datetime
    estimator: str
    target: Target
    columns: Sequence[Column]
    rows: dict[str, int]
    split: dict[str, Any]
    recipe: str
    seed: int
    candidates: list[dict[str, Any]]
    metrics: dict[str, Metric]
    notes: list[str]
    libraries: dict[str, str]
    data_digest: str
    seconds: float

    def document(self) -> dict[str, Any]:
        classes = self.target.classes
        return {
            "model": self.model,
            "trained_at": self.trained_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "seconds": round(self.seconds, 1),
            "kind": self.target.kind,
            "target": self.target.name,
            "classes": None if classes is None else list(classes),
            "estimator": self.estimator,
            "recipe": self.recipe,
            "seed": self.seed,
            "columns": [column.model_dump(mode="json", exclude_none=True) for column in self.columns],
            "rows": self.rows,
            "split": self.split,
            "candidates": self.candidates,
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "notes": self.notes,
            "libraries": self.libraries,
            "data_digest": self.data_digest,
        }

    def lineage(self) -> dict[str, Any]:
        """What the registry keeps with the version."""
        return {
            "trained_at": self.document()["trained_at"],
            "recipe": self.recipe,
            "seed": self.seed,
            "training_data": self.data_digest,
            "training_rows": self.rows["training"],
            "hold_out_rows": self.rows["hold_out"],
            "split": self.split,
            "hold_out_metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "libraries": self.libraries,
        }

    def markdown(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def write(self, folder: Path) -> None:
        """Write `card.json` and `card.md`."""
        (folder / "card.json").write_text(json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n")
        (folder / "card.md").write_text(self.markdown())

    def _lines(self) -> Iterator[str]:
        told = self.document()
        yield f"# {_escaped(self.model)}"
        yield ""
        yield f"Predicts `{_code(self.target.name)}` ({self.target.kind}), trained {told['trained_at']} in {told['seconds']} s."
        if told["classes"] is not None:
            yield f"Classes: {', '.join(f'`{_code(label)}`' for label in told['classes'])}."
        yield f"Estimator: {self.estimator}; recipe `{_code(self.recipe)}`, seed {self.seed}."
        yield from ("", "## How well it does", "")
        yield f"On {self.rows['hold_out']:,} rows that it was not fitted on, {_how(self.split)}:"
        yield from ("", "| metric | value | 95 % interval |", "| --- | --- | --- |")
        names = [*(name for name in _FIRST if name in self.metrics), *(n for n in self.metrics if n not in _FIRST)]
        for name in names:
            metric = self.metrics[name]
            yield f"| {name} | {metric.value:.4g} | {metric.low:.4g} to {metric.high:.4g} |"
        if self.candidates:
            yield from ("", "## What was tried", "")
            loss = "log loss" if self.target.kind == "classification" else "squared error"
            yield from (
                f"| candidate | {loss} in cross-validation | standard error | seconds |",
                "| --- | --- | --- | --- |",
            )
            for each in self.candidates:
                yield f"| {_escaped(each['name'])} | {each['loss']:.4g} | {each['standard_error']:.2g} | {each['seconds']:.1f} |"
        yield from ("", "## Data", "")
        counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in self.rows.items())
        yield f"Rows: {counts}. File: `{self.data_digest}`."
        yield from ("", "| column | type | may be empty |", "| --- | --- | --- |")
        for column in self.columns:
            yield f"| {_escaped(column.name)} | {column.type} | {'yes' if column.nullable else 'no'} |"
        if self.notes:
            yield from ("", "## Notes", "")
            yield from (f"- {_escaped(note)}" for note in self.notes)
        yield from ("", "## Libraries", "")
        yield ", ".join(f"{name} {version}" for name, version in self.libraries.items())


def _how(split: dict[str, Any]) -> str:
    if split["by"] == "time":
        return f"the latest by `{_code(split['column'])}` (from {split['hold_out_from']})"
    return "drawn at random"


def _escaped(text: str) -> str:
    """Names of columns are the user's; none of them may become a part of the page."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#|" else char for char in text.replace("\n", " "))


def _code(text: object) -> str:
    return str(text).replace("`", "'").replace("\n", " ")
