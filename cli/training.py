"""`scorehouse train`: a labelled CSV in, a model with its card out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.connection import Json, Url, connect
from cli.options import Delimiter, Quiet, delimiter_of
from cli.progress import shown
from cli.stages import stages
from cli.terminal import say, write_json, write_table
from errors import InvalidInput

if TYPE_CHECKING:
    from scorehouse_client import ModelVersion
    from training.train import Trained

ModelName = Annotated[str, typer.Argument(help="Name of the model.", metavar="MODEL", show_default=False)]
Data = Annotated[Path, typer.Option("--data", exists=True, dir_okay=False, help="Labelled CSV with a header.")]
Target = Annotated[str, typer.Option(help="Column that is to be predicted.")]
Key = Annotated[str | None, typer.Option(help="Column with your own ids.", show_default=False)]
Time = Annotated[
    str | None,
    typer.Option(help="Column with the time, by which the hold-out is the last part.  [found]", show_default=False),
]
Kind = Annotated[
    Literal["classification", "regression"] | None, typer.Option(help="[told by the target]", show_default=False)
]
Share = Annotated[float, typer.Option("--hold-out", min=0.05, max=0.5, help="Share of the rows to judge by.")]


def register(app: typer.Typer) -> None:
    app.command()(train)


def train(  # noqa: PLR0917  # each is an option of the command
    model: ModelName,
    data: Data,
    target: Target,
    key: Key = None,
    time: Time = None,
    at_random: Annotated[
        bool, typer.Option("--random-split", help="Draw the hold-out at random, whatever the time.")
    ] = False,
    kind: Kind = None,
    recipe: Annotated[
        str, typer.Option(help="default, linear, gradient-boosting, small-trees, or your own.")
    ] = "default",
    hold_out: Share = 0.2,
    max_rows: Annotated[int, typer.Option(min=100, help="Of a larger file, so many rows are drawn.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="The same seed and data, the same model.")] = 20130401,
    delimiter: Delimiter = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", file_okay=False, help="Folder to write into.  [trained/MODEL]")
    ] = None,
    register_it: Annotated[bool, typer.Option("--register", help="Register it as the model's candidate.")] = False,
    version: Annotated[str | None, typer.Option(help="[the next free one]", show_default=False)] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Register also what a recipe of your own made that only joblib can hold."),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    url: Url = None,
) -> None:
    """Train a model from a labelled CSV and judge it on rows that it has not seen.

    Writes the model, reference.csv, card.md and card.json. With --register it becomes the candidate; nothing is deployed.
    """
    from training.train import Order, train  # noqa: PLC0415  # scikit-learn takes a second to import

    folder = out or Path("trained") / model
    order = Order(
        model,
        data,
        target,
        key=key,
        time=time,
        at_random=at_random,
        kind=kind,
        recipe=recipe,
        delimiter=delimiter_of(delimiter) or ",",
        hold_out=hold_out,
        max_rows=max_rows,
        seed=seed,
    )
    with stages(quiet) as progress:
        trained = train(order, folder, progress)
    registered = None
    if register_it:
        _check_trust(trained, trust, folder)
        registered = _register(trained, version, key, url, quiet)
    if as_json:
        write_json({**trained.card.document(), "registered": None if registered is None else registered.version})
        return
    if not quiet:
        _show(trained, folder)
    if registered is not None and not quiet:
        say(
            f"{model} {registered.version} is registered as candidate. Put it into production with "
            f"`scorehouse models deploy {model} {registered.version}`"
        )


def _check_trust(trained: Trained, trust: bool, folder: Path) -> None:
    """What our own recipes make consists of scikit-learn's classes, and was made here and now; of another's we know nothing."""
    from training.candidates import OURS  # noqa: PLC0415  # scikit-learn takes a second to import

    if trained.artefact.trust and not trust and trained.card.recipe not in OURS:
        raise InvalidInput(
            f"only joblib can hold what the recipe '{trained.card.recipe}' made, and that runs code when it is loaded: "
            f"say --trust to register it so. It is in {folder}"
        )


def _register(trained: Trained, version: str | None, key: str | None, url: str | None, quiet: bool) -> ModelVersion:
    from scorehouse_client import ScorehouseApiError  # noqa: PLC0415  # see cli.connection
    from training.versions import next_version  # noqa: PLC0415  # as above

    model = trained.card.model
    with connect(url) as client, shown(quiet) as display:
        try:
            existing = [each.version for each in client.model(model).versions]
        except ScorehouseApiError as exc:
            if exc.status != 404:
                raise
            existing = []
        return client.register_version(
            model,
            version or next_version(existing),
            trained.artefact.path,
            trained.reference,
            key=key,
            target=trained.card.target.name,
            trust=trained.artefact.trust,
            lineage=trained.lineage,
            candidate=True,
            progress=display.upload,
        )


def _show(trained: Trained, folder: Path) -> None:
    card = trained.card
    write_table(
        ("metric", "value", "low", "high"),
        [(name, f"{m.value:.4g}", f"{m.low:.4g}", f"{m.high:.4g}") for name, m in card.metrics.items()],
    )
    for note in card.notes:
        say(f"- {note}")
    say(
        f"Trained on {card.rows['training']:,} rows and judged on {card.rows['hold_out']:,} others in "
        f"{card.seconds:,.0f} s; see {folder / 'card.md'}"
    )
