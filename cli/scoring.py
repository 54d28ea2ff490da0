"""`scorehouse score`: a file in, its scores out; and how the end of a job is told."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import typer

from cli.connection import Url, connect
from cli.options import (
    AsOf,
    Delimiter,
    File,
    Format,
    KeepFormulas,
    Key,
    Model,
    Output,
    Pairs,
    PriorityOption,
    Quiet,
    Reading,
    Strict,
    Version,
    WithInputs,
    as_of_text,
    delimiter_of,
    destination_of,
    metadata_of,
    source_of,
)
from cli.progress import shown
from cli.terminal import lines, say, warn

if TYPE_CHECKING:
    from scorehouse_client import Client, Job

# A few of the row errors tell what kinds there are; counting millions would take as long as fetching them.
COUNTED_ERRORS = 1000


def register(app: typer.Typer) -> None:
    app.command()(score)


def score(  # noqa: PLR0917  # each is an option of the command
    file: File,
    model: Model,
    output: Output,
    key: Key = None,
    include_inputs: WithInputs = False,
    version: Version = None,
    delimiter: Delimiter = None,
    format: Format = None,
    input_format: Reading = None,
    metadata: Pairs = None,
    priority: PriorityOption = None,
    as_of: AsOf = None,
    keep_formulas: KeepFormulas = False,
    strict: Strict = False,
    quiet: Quiet = False,
    url: Url = None,
) -> None:
    """Score a file: upload it, wait, download the results.

    Exits 0 when every row was scored or errored, 1 when the job failed or was canceled.
    """
    from scorehouse_client import ScorehouseClientError  # noqa: PLC0415  # see cli.connection

    source, destination = source_of(file), destination_of(output, format)
    pairs = metadata_of(metadata)
    seen: list[Job] = []
    with connect(url) as client:
        began = time.monotonic()
        try:
            with shown(quiet) as display:

                def follow(job: Job) -> None:
                    seen.append(job)
                    display.job(job)

                job = client.score_file(
                    source,
                    model,
                    destination,
                    version=version,
                    key_column=key,
                    delimiter=delimiter_of(delimiter),
                    input_format=input_format,
                    metadata=pairs,
                    priority=priority,
                    as_of=as_of_text(as_of),
                    format=format,
                    include_inputs=include_inputs,
                    formulas="keep" if keep_formulas else None,
                    on_upload=display.upload,
                    on_job=follow,
                    on_download=display.download,
                )
        except KeyboardInterrupt:
            say(what_remains(seen[-1]) if seen else "Stopped; nothing was submitted.")
            raise typer.Exit(130) from None
        except ScorehouseClientError:
            if seen:
                say(what_remains(seen[-1]))
            raise
        if not quiet and job.scored:
            say(summary(job, time.monotonic() - began))
        conclude(client, job, strict)


def what_remains(job: Job) -> str:
    """Of a job that one stops following."""
    if job.finished:
        return f"Job {job.id} has finished; fetch its results with `scorehouse jobs results {job.id} -o FILE`"
    return goes_on(job.id)


def goes_on(job_id: str) -> str:
    return (
        f"Job {job_id} goes on without you.\n"
        f"  scorehouse jobs watch {job_id}            see how it goes\n"
        f"  scorehouse jobs results {job_id} -o FILE  fetch its results\n"
        f"  scorehouse jobs cancel {job_id}           stop it"
    )


def summary(job: Job, seconds: float) -> str:
    rows = job.rows
    rate = rows.done / seconds if seconds else 0.0
    return (
        f"{rows.total:,} rows in {seconds:,.1f} s ({rate:,.0f} rows/s): {rows.succeeded:,} succeeded, "
        f"{rows.errored:,} errored. Job {job.id}"
    )


def conclude(client: Client, job: Job, strict: bool) -> None:
    """Tell what a person must know of a finished job, and exit 1 when it is not good."""
    if job.scored:
        if job.rows.errored:
            warn(f"{_count(job.rows.errored)} not scored: {_codes(client, job)}\n  scorehouse jobs errors {job.id}")
        if strict and job.rows.errored:
            raise typer.Exit(1)
        return
    reason = f": {job.error}" if job.error else ""
    rest = (
        f" {_count(job.rows.succeeded)} scored before: `scorehouse jobs results {job.id}`."
        if job.rows.succeeded
        else ""
    )
    say(f"Job {job.id} {'failed' if job.state == 'failed' else 'was canceled'}{reason}.{rest}", style="red")
    raise typer.Exit(1)


def _count(rows: int) -> str:
    return "1 row was" if rows == 1 else f"{rows:,} rows were"


def _codes(client: Client, job: Job) -> str:
    """How often each code occurs among the first row errors."""
    with closing(client.errors(job.id, "ndjson")) as blocks:  # type: ignore[type-var]  # it is a generator
        codes = Counter(json.loads(line)["code"] for line in islice(lines(blocks), COUNTED_ERRORS))
    counts = ", ".join(f"{code} {count:,}" for code, count in codes.most_common())
    return counts if job.rows.errored <= COUNTED_ERRORS else f"{counts} among the first {COUNTED_ERRORS:,}"
