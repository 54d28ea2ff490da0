"""Options and arguments that several commands share, and what is made of them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import typer

from cli.terminal import binary_output

# The words of the API; the client has the same, but is imported only when it is used.
ResultFormat = Literal["csv", "ndjson", "parquet"]
InputFormat = Literal["csv", "ndjson"]
Priority = Literal["low", "normal", "high"]

JobId = Annotated[str, typer.Argument(help="Id of the job.", metavar="ID", show_default=False)]
File = Annotated[str, typer.Argument(help="CSV or NDJSON, also with .gz; - for standard input.", metavar="FILE")]
Model = Annotated[str, typer.Option("--model", "-m", help="Name of the model.")]
Version = Annotated[str | None, typer.Option(help="Version of the model.  [the one in production]", show_default=False)]
Key = Annotated[
    str | None,
    typer.Option("--key", help="Column with your own ids; passed through.  [the model's]", show_default=False),
]
Delimiter = Annotated[str | None, typer.Option(help="Between columns; `tab` for a tab.  [,]", show_default=False)]
Reading = Annotated[
    InputFormat | None, typer.Option(help="What FILE is.  [told by its name, else csv]", show_default=False)
]
Pairs = Annotated[
    list[str] | None, typer.Option("--metadata", help="NAME=VALUE to keep with the job; repeat it for more.")
]
PriorityOption = Annotated[
    Priority | None, typer.Option(help="Before or behind other jobs of the tenant.  [normal]", show_default=False)
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", help="Time that the rows stand for, for audits.  [now]", show_default=False, metavar="TIME"
    ),
]
Output = Annotated[str, typer.Option("--output", "-o", help="File for the results; - for standard output.")]
Format = Annotated[
    ResultFormat | None, typer.Option("--format", help="[told by the output's name, else csv]", show_default=False)
]
WithInputs = Annotated[bool, typer.Option("--include-inputs", help="Your own columns first, then the scores.")]
KeepFormulas = Annotated[
    bool, typer.Option("--keep-formulas", help="Leave text that a spreadsheet would run as a formula as it is.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit 1 when a row errored.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]


def source_of(file: str) -> str | BinaryIO:
    if file == "-":
        return sys.stdin.buffer
    if not Path(file).exists() or Path(file).is_dir():
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    return file


def destination_of(output: str, format: ResultFormat | None) -> str | BinaryIO:
    if output != "-":
        return output
    if format == "parquet" and sys.stdout.isatty():
        raise typer.BadParameter("Parquet is no text: name a file, or pipe it somewhere", param_hint="--output")
    return binary_output()


def delimiter_of(text: str | None) -> str | None:
    return "\t" if text in ("tab", "\\t") else text


def as_of_text(text: str | None) -> str | None:
    """A date or a time as RFC 3339; without an offset it is UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise typer.BadParameter(
            f"{text!r} is neither a date such as 2013-04-01 nor a time such as 2013-04-01T12:00:00Z", param_hint="TIME"
        ) from exc
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def metadata_of(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is not of the form NAME=VALUE", param_hint="--metadata")
    return dict(pair.split("=", maxsplit=1) for pair in pairs)
