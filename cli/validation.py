"""`scorehouse models validate`: is a version good enough and quick enough? Made for pipelines: the exit code is the answer."""

from __future__ import annotations

import csv
import difflib
import json
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import Json, Url, connect
from cli.options import Delimiter, Quiet, delimiter_of
from cli.progress import Display, shown
from cli.terminal import lines, say, write_json, write_table
from errors import InvalidInput

if TYPE_CHECKING:
    from registry.signature import Output
    from scorehouse_client import Client, ModelVersion

#: What a check may be about: metrics of the registry and of audits, and the share of rows that could not be scored.
METRICS = (
    *("accuracy", "precision", "recall", "f1", "precision_positive", "recall_positive", "f1_positive"),
    *("roc_auc", "log_loss", "brier", "ece", "mae", "rmse", "bias", "r2", "rows", "error_rate"),
)


#: The time that rows stand for which are scored only to look at the model: no audit's window reaches back to it, and no training.
LONG_AGO = "2000-01-01T00:00:00Z"


@dataclass(frozen=True)
class Check:
    """`value` is None where it is not defined, which fails."""

    name: str
    bound: str
    limit: float
    value: float | None

    @property
    def passed(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.limit if self.bound == "min" else self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "passed": self.passed}


def validate(  # noqa: PLR0917  # each is an option of the command
    model: Annotated[str, typer.Argument(help="Name of the model.", metavar="MODEL", show_default=False)],
    version: Annotated[str, typer.Argument(show_default=False)],
    minimum: Annotated[
        list[str] | None, typer.Option("--min", metavar="METRIC=NUMBER", help="At least so much; repeat it for more.")
    ] = None,
    maximum: Annotated[
        list[str] | None, typer.Option("--max", metavar="METRIC=NUMBER", help="At most so much; repeat it for more.")
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Seconds that 95 % of single records may take, through the queue.", show_default=False
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Labelled CSV to score.  [the metrics of the registration]",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Its column with the truth.  [the model's]", show_default=False)
    ] = None,
    delimiter: Delimiter = None,
    singles: Annotated[int, typer.Option(min=5, max=1000, help="Single records to time.")] = 20,
    as_json: Json = False,
    quiet: Quiet = False,
    url: Url = None,
) -> None:
    """Check a version, whether it is in production or not. Exits 0 when all is well, 1 when a check failed, 2 for wrong usage."""
    wanted = [*_bounds(minimum, "min"), *_bounds(maximum, "max")]
    if not wanted and max_latency is None:
        raise typer.BadParameter("say what is to be checked, for example --min accuracy=0.8", param_hint="--min")
    with connect(url) as client:
        found = client.version(model, version)
        metrics: dict[str, float] = dict(found.metrics)
        if data is not None:
            with shown(quiet or as_json) as display:
                metrics = scored_metrics(
                    client, found, data, target=target, delimiter=delimiter_of(delimiter) or ",", display=display
                )
        checks = [Check(name, bound, limit, metrics.get(name)) for name, bound, limit in wanted]
        if max_latency is not None:
            checks.append(Check("latency_p95", "max", max_latency, latency(client, found, singles)))
    passed = all(check.passed for check in checks)
    if as_json:
        document = {"model": model, "version": version, "passed": passed, "checks": [each.to_json() for each in checks]}
        write_json({**document, "data": None if data is None else str(data), "metrics": metrics})
    else:
        _show(checks)
        if not quiet:
            failed = [check.name for check in checks if not check.passed]
            say(
                f"{model} {version}: " + ("all checks passed" if passed else f"failed: {', '.join(failed)}"),
                style="green" if passed else "bold red",
            )
    if not passed:
        raise typer.Exit(1)


def scored_metrics(
    client: Client, version: ModelVersion, data: Path, *, target: str | None, delimiter: str, display: Display
) -> dict[str, float]:
    """Score a labelled file by this version, through the queue, and compare; also `rows` and `error_rate`.

    Raises:
        InvalidInput: the file has no column with the truth.
    """
    from monitoring.accuracy import metrics  # noqa: PLC0415  # numpy takes time to import

    output = _output(version)
    labels = _column(data, target or str(version.signature.get("target") or ""), delimiter)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.csv"
        job = client.score_file(
            data,
            version.model,
            results,
            version=version.version,
            delimiter=delimiter,
            formulas="keep",
            as_of=LONG_AGO,
            on_upload=display.upload,
            on_job=display.job,
            on_download=display.download,
        )
        if not job.scored:
            raise InvalidInput(f"the file could not be scored: {job.error or job.state}")
        with closing(client.errors(job.id, "ndjson")) as blocks:  # type: ignore[type-var]  # it is a generator
            errored = {int(json.loads(line)["row"]) for line in lines(blocks)}
        known = [label for row, label in enumerate(labels, start=1) if row not in errored]
        found = metrics(_outcomes(output, results, known))
    return {
        **{name: metric.value for name, metric in found.items()},
        "rows": float(len(labels)),
        "error_rate": len(errored) / max(len(labels), 1),
    }


def latency(client: Client, version: ModelVersion, singles: int) -> float | None:
    """Seconds within which 95 % of single records were answered; None when one could not be scored.

    The record is made of what the signature says. The first one is not timed: a worker may have to load the version.
    """
    record = sample_record(version)
    seconds: list[float] = []
    for _ in range(singles + 1):
        began = time.perf_counter()
        job = client.submit(version.model, record, version=version.version, as_of=LONG_AGO, wait=30)
        seconds.append(time.perf_counter() - began)
        if job.state != "succeeded":
            say(f"a single record was not scored: {job.error or job.state}", style="red")
            return None
    timed = sorted(seconds[1:])
    return timed[max(0, -(-95 * len(timed) // 100) - 1)]


def sample_record(version: ModelVersion) -> dict[str, Any]:
    """Inputs that suit the signature."""
    return {column["name"]: _some_value(column) for column in version.signature["columns"]}


def _bounds(texts: list[str] | None, bound: str) -> list[tuple[str, str, float]]:
    found = []
    for text in texts or []:
        name, _, number = text.partition("=")
        try:
            limit = float(number)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not of the form METRIC=NUMBER", param_hint=f"--{bound}") from None
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(METRICS)}"
            raise typer.BadParameter(f"there is no metric {name!r}; {hint}", param_hint=f"--{bound}")
        found.append((name, bound, limit))
    return found


def _output(version: ModelVersion) -> Output:
    from registry.signature import Output  # noqa: PLC0415  # pydantic takes time to import

    return Output.model_validate(version.signature["output"])


def _column(data: Path, name: str, delimiter: str) -> list[str]:
    """The cells of a column, row by row."""
    csv.field_size_limit(1 << 30)
    with data.open(newline="", encoding="utf-8-sig") as file:
        records = csv.reader(file, delimiter=delimiter)
        header = next(records, [])
        if name not in header:
            told = f"has no column '{name}'" if name else "has a column with the truth that the model does not know"
            raise InvalidInput(f"{data.name} {told}; name it with --target. Its columns are {', '.join(header)}")
        place = header.index(name)
        return [record[place] if place < len(record) else "" for record in records if record]


def _outcomes(output: Output, results: Path, labels: list[str]) -> Any:
    """Counters over the rows that were scored; a row without a label counts nowhere."""
    import numpy as np  # noqa: PLC0415  # as above

    from monitoring.outcomes import outcomes_of  # noqa: PLC0415  # as above

    with results.open(newline="") as file:
        records = csv.reader(file)
        header = next(records)
        rows = list(records)
    assert len(rows) == len(labels), "each row is either scored or errored"
    predictions = [row[header.index("prediction")] for row in rows]
    places = [place for place, name in enumerate(header) if name.startswith("probability")]
    numbers = np.array([[float(row[place]) for place in places] for row in rows]).reshape(len(rows), len(places))
    probability = numbers[:, 0] if output.positive is not None and places else None
    probabilities = numbers if output.positive is None and places else None
    return outcomes_of(output, predictions, probability, probabilities, labels)


def _some_value(column: dict[str, Any]) -> Any:
    kind = column["type"]
    if kind in ("number", "integer"):
        middle = ((column.get("minimum") or 0) + (column.get("maximum") or 0)) / 2
        return round(middle) if kind == "integer" else middle
    if kind == "category":
        return (column.get("categories") or ["a"])[0]
    return {"boolean": False, "text": "a", "timestamp": "2020-01-01T00:00:00Z"}[kind]


def _show(checks: list[Check]) -> None:
    rows = []
    for check in checks:
        value = "not defined" if check.value is None else f"{check.value:.4g}"
        sign = "≥" if check.bound == "min" else "≤"
        rows.append((check.name, value, f"{sign} {check.limit:g}", "passed" if check.passed else "FAILED"))
    write_table(("check", "value", "wanted", "result"), rows)
