"""`scorehouse labels …`: feed back what came true."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.connection import Json, Url, connect
from cli.options import Delimiter, Model, Quiet, delimiter_of, source_of
from cli.progress import shown
from cli.terminal import say, warn, write_json

File = Annotated[
    str,
    typer.Argument(
        help="CSV with the columns key or prediction_id, label and, if wanted, observed_at; - for standard input.",
        metavar="FILE",
    ),
]


def register(app: typer.Typer) -> None:
    labels = typer.Typer(help="Feed back what came true.", no_args_is_help=True)
    labels.command("upload")(upload)
    app.add_typer(labels, name="labels")


def upload(  # noqa: PLR0917  # each is an option of the command
    file: File,
    model: Model,
    delimiter: Delimiter = None,
    quiet: Quiet = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Upload labels: in any order, more than once; the newest observation of each wins.

    Exits 1 when some could not be read; the others are stored.
    """
    source = source_of(file)
    with connect(url) as client, shown(quiet or as_json) as display:
        counts = client.upload_labels(source, model, delimiter=delimiter_of(delimiter), progress=display.upload)
    if as_json:
        write_json(counts)
    elif not quiet:
        say(told(counts))
    if counts["rejected"]:
        lines = "".join(f"\n  line {each['line']}: {each['detail']}" for each in counts["rejections"][:10])
        warn(f"{counts['rejected']:,} labels cannot be read:{lines}")
        raise typer.Exit(1)


def told(counts: dict[str, Any]) -> str:
    """The counts of an upload as a sentence."""
    parts = [f"{counts['matched']:,} matched", f"{counts['unmatched']:,} wait for their prediction"]
    parts += [f"{counts[name]:,} {name}" for name in ("replaced", "stale") if counts[name]]
    return f"{counts['received']:,} labels: {', '.join(parts)}"
