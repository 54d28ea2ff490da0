"""`scorehouse jobs results` and `jobs errors`: what a job made, and what it could not score."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.connection import Url, connect
from cli.options import Format, JobId, KeepFormulas, WithInputs, destination_of
from cli.progress import scoring
from cli.terminal import binary_output, lines, say, warn, write_json_list, write_table

if TYPE_CHECKING:
    from scorehouse_client import Client, Job

ERROR_COLUMNS = ("row", "line", "key", "code", "column", "message", "raw")
SHOWN_ERRORS = 20
ErrorFormat = Literal["csv", "ndjson"]
OutputOrStdout = Annotated[str, typer.Option("--output", "-o", help="File to write to; - for standard output.")]
JsonList = Annotated[bool, typer.Option("--json", help="One JSON list on standard output.")]


def results(  # noqa: PLR0917  # each is an option of the command
    job_id: JobId,
    output: OutputOrStdout = "-",
    format: Format = None,
    include_inputs: WithInputs = False,
    keep_formulas: KeepFormulas = False,
    as_json: JsonList = False,
    url: Url = None,
) -> None:
    """Fetch results in input order; of a running job those that are there so far."""
    destination = destination_of(output, format)
    formulas: Literal["keep"] | None = "keep" if keep_formulas else None
    with connect(url) as client:
        _say_when_partial(client.job(job_id))
        if as_json:
            write_json_list(lines(client.results(job_id, "ndjson", include_inputs, formulas)))
            return
        client.download(
            job_id,
            destination,
            format=format,
            include_inputs=include_inputs,
            formulas=formulas,
        )


def _say_when_partial(job: Job) -> None:
    if not job.finished:
        warn(f"The job has not finished, these are the results so far: {scoring(job)}")


def errors(  # noqa: PLR0917  # each is an option of the command
    job_id: JobId,
    format: Annotated[
        ErrorFormat | None,
        typer.Option("--format", help="All of them, as they come.  [a table of the first]", show_default=False),
    ] = None,
    output: OutputOrStdout = "-",
    limit: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = SHOWN_ERRORS,
    as_json: JsonList = False,
    url: Url = None,
) -> None:
    """Show the rows that could not be scored, and why."""
    with connect(url) as client:
        if as_json:
            write_json_list(lines(client.errors(job_id, "ndjson")))
        elif format is not None or output != "-":
            _write(client.errors(job_id, _error_format(format, output)), output)
        else:
            _error_table(client, job_id, limit)


def _error_format(format: ErrorFormat | None, output: str) -> ErrorFormat:
    if format is not None:
        return format
    return "ndjson" if PurePath(output).suffix in (".ndjson", ".jsonl") else "csv"


def _write(blocks: Iterable[bytes], output: str) -> None:
    from scorehouse_client.destination import opened  # noqa: PLC0415  # see cli.connection

    with opened(binary_output() if output == "-" else output) as (file, _):
        for block in blocks:
            file.write(block)


def _error_table(client: Client, job_id: str, limit: int) -> None:
    total = client.job(job_id).rows.errored
    found = [json.loads(line) for line in islice(lines(client.errors(job_id, "ndjson")), limit)]
    if found:
        write_table(ERROR_COLUMNS, [[error.get(column) for column in ERROR_COLUMNS] for error in found])
    if total > len(found):
        say(f"The first {len(found):,} of {total:,}; all of them: scorehouse jobs errors {job_id} --format csv -o FILE")
    elif not found:
        say("No row errored.")
