"""`scorehouse jobs …`: submit, follow and fetch."""

from __future__ import annotations

import json
from itertools import islice
from typing import Annotated, Any, Literal

import typer

from cli.connection import Json, Url, connect
from cli.fetching import errors, results
from cli.options import (
    Delimiter,
    JobId,
    Pairs,
    PriorityOption,
    Quiet,
    Reading,
    Strict,
    Version,
    delimiter_of,
    metadata_of,
    source_of,
)
from cli.progress import scoring, shown
from cli.scoring import conclude, goes_on
from cli.terminal import (
    say,
    standard_output,
    write_fields,
    write_json,
    write_table,
)

State = Literal["queued", "running", "succeeded", "completed_with_errors", "failed", "canceled"]


def register(app: typer.Typer) -> None:
    jobs = typer.Typer(help="Submit jobs, follow them, fetch what they made.", no_args_is_help=True)
    for name, command in (
        ("submit", submit),
        ("list", list_jobs),
        ("show", show),
        ("watch", watch),
        ("results", results),
        ("errors", errors),
        ("cancel", cancel),
        ("retry", retry),
    ):
        jobs.command(name)(command)
    app.add_typer(jobs, name="jobs")


def submit(  # noqa: PLR0917  # each is an option of the command
    file: Annotated[str | None, typer.Argument(help="CSV or NDJSON, also with .gz; - for standard input.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Name of the model.", show_default=False)] = None,
    record: Annotated[
        str | None,
        typer.Option("--json", help="Instead of FILE: one record {…} or a list of them [{…}, …].", show_default=False),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Column with your own ids; of one --json record its id.", show_default=False)
    ] = None,
    version: Version = None,
    delimiter: Delimiter = None,
    input_format: Reading = None,
    metadata: Pairs = None,
    priority: PriorityOption = None,
    wait: Annotated[
        float, typer.Option(help="With --json: wait this many seconds (at most 60) and print the job.", min=0, max=60)
    ] = 0,
    quiet: Quiet = False,
    url: Url = None,
) -> None:
    """Submit a file, or records as JSON; prints the id of the job."""
    if (file is None) == (record is None):
        raise typer.BadParameter("give either FILE or --json '{…}'")
    pairs = metadata_of(metadata)
    if record is not None:
        model, inputs = _inputs(record, model)
        one = isinstance(inputs, dict)
        with connect(url) as client:
            job = client.submit(
                model,
                inputs,
                version=version,
                key=key if one else None,
                key_column=None if one else key,
                metadata=pairs,
                priority=priority,
                wait=wait or None,
            )
        if wait:
            write_json(job.raw)
    else:
        if model is None:
            raise typer.BadParameter("name the model", param_hint="--model")
        source = source_of(file or "-")
        with connect(url) as client, shown(quiet) as display:
            job = client.submit_file(
                source,
                model,
                version=version,
                key_column=key,
                delimiter=delimiter_of(delimiter),
                input_format=input_format,
                metadata=pairs,
                priority=priority,
                progress=display.upload,
            )
    if not wait or record is None:
        standard_output().print(job.id)
        if not quiet:
            say(f"{scoring(job)}; follow it with `scorehouse jobs watch {job.id}`")


def _inputs(text: str, model: str | None) -> tuple[str, Any]:
    """Model and records; a whole request body, as the API takes it, names its model itself."""
    try:
        content = json.loads(text)
    except ValueError as exc:
        raise typer.BadParameter(f"this is not JSON: {exc}", param_hint="--json") from exc
    if model is None and isinstance(content, dict) and {"model", "inputs"} <= content.keys():
        return str(content["model"]), content["inputs"]
    if model is None:
        raise typer.BadParameter("name the model", param_hint="--model")
    return model, content


def list_jobs(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.", show_default=False)] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Only jobs of this model.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 20,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List jobs, the newest first."""
    with connect(url) as client:
        found = list(islice(client.jobs(state=state, model=model, page_size=min(limit, 100)), limit))
    if as_json:
        write_json({"jobs": [job.raw for job in found]})
        return
    write_table(
        ("id", "created", "model", "version", "state", "rows", "errored", "done"),
        [
            (
                job.id,
                job.created_at,
                job.model,
                job.model_version,
                job.state,
                job.rows.total,
                job.rows.errored,
                f"{job.progress:.0%}",
            )
            for job in found
        ],
    )


def show(
    job_id: JobId,
    wait: Annotated[float, typer.Option(min=0, max=60, help="Wait up to so many seconds for its end.")] = 0,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show a job as it stands."""
    with connect(url) as client:
        job = client.job(job_id, wait=wait or None)
    if as_json:
        write_json(job.raw)
        return
    rows = job.rows
    counts = f"{rows.total:,}: {rows.succeeded:,} succeeded, {rows.errored:,} errored, {rows.canceled:,} canceled, {rows.pending:,} pending"
    write_fields(
        [
            ("job", job.id),
            ("state", job.state),
            ("error", job.error),
            ("model", f"{job.model} {job.model_version}"),
            ("digest", job.digest),
            ("lane", job.lane),
            ("rows", counts),
            ("progress", f"{job.progress:.0%}"),
            ("rows/s", None if job.rows_per_second is None else round(job.rows_per_second)),
            ("created", job.created_at),
            ("started", job.started_at),
            ("finished", job.finished_at),
            ("expires", job.expires_at),
            ("inputs removed", job.inputs_removed_at),
            ("retries", job.parent),
            ("metadata", ", ".join(f"{name}={value}" for name, value in job.metadata.items())),
            ("result", json.dumps(job.result, ensure_ascii=False) if job.result else None),
        ]
    )


def watch(
    job_id: JobId,
    as_json: Json = False,
    strict: Strict = False,
    quiet: Quiet = False,
    url: Url = None,
) -> None:
    """Follow a job to its end; Ctrl-C leaves it alone."""
    with connect(url) as client:
        try:
            with shown(quiet) as display:
                job = client.wait(job_id, progress=display.job)
        except KeyboardInterrupt:
            say(goes_on(job_id))
            raise typer.Exit(130) from None
        if as_json:
            write_json(job.raw)
        if not quiet and job.scored:
            say(scoring(job))
        conclude(client, job, strict)


def cancel(job_id: JobId, as_json: Json = False, url: Url = None) -> None:
    """Stop a job; what is scored stays."""
    with connect(url) as client:
        job = client.cancel(job_id)
    if as_json:
        write_json(job.raw)
    else:
        say(
            f"Job {job.id} is {job.state.replace('_', ' ')}: {job.rows.succeeded:,} of {job.rows.total:,} rows are scored"
        )


def retry(
    job_id: JobId,
    version: Annotated[str | None, typer.Option(help="[the version of the first job]", show_default=False)] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Score the rows again that errored, in a new job; prints its id."""
    with connect(url) as client:
        job = client.retry(job_id, version)
    if as_json:
        write_json(job.raw)
    else:
        standard_output().print(job.id)
        say(f"{scoring(job)}; follow it with `scorehouse jobs watch {job.id}`")
