"""`scorehouse models …`: register versions, look at them; `cli.deployments` has what puts them into production."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import deployments
from cli.connection import Json, Url, connect
from cli.options import Quiet
from cli.progress import shown
from cli.terminal import say, write_fields, write_json, write_table

if TYPE_CHECKING:
    from scorehouse_client import ModelVersion


Runtime = Literal["auto", "sklearn", "onnx"]
Name = Annotated[str, typer.Argument(help="Name of the model.", metavar="MODEL", show_default=False)]


def register(app: typer.Typer) -> None:
    models = typer.Typer(help="Register model versions, deploy them, look them up.", no_args_is_help=True)
    for name, command in (
        ("register", register_version),
        ("list", list_models),
        ("show", show),
        *deployments.COMMANDS,
    ):
        models.command(name)(command)
    app.add_typer(models, name="models")


def register_version(  # noqa: PLR0917  # each is an option of the command
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="The fitted model: .joblib, .pkl, .skops or .onnx.")
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the model.")],
    version: Annotated[str, typer.Option(help="Semantic version, such as 1.2.0.")],
    reference: Annotated[
        Path,
        typer.Option(
            exists=True, dir_okay=False, help="CSV sample: gives the signature and is what inputs are compared with."
        ),
    ],
    target: Annotated[
        str | None, typer.Option(help="Column of the reference that is predicted.", show_default=False)
    ] = None,
    key: Annotated[str | None, typer.Option(help="Column of the reference with ids.", show_default=False)] = None,
    runtime: Annotated[Runtime, typer.Option(help="What runs it.")] = "auto",
    trust: Annotated[
        bool, typer.Option("--trust", help="Needed for joblib and pickle, which run code when they are loaded.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    url: Url = None,
) -> None:
    """Register a version of a model; it is immutable from then on."""
    with connect(url) as client, shown(quiet) as display:
        found = client.register_version(
            name,
            version,
            file,
            reference,
            key=key,
            target=target,
            runtime=runtime,
            trust=trust,
            progress=display.upload,
        )
    if as_json:
        write_json(found.raw)
    elif not quiet:
        say(
            f"{found.model} {found.version} is registered ({found.runtime or found.format}, {found.digest}). "
            f"Put it into production with `scorehouse models deploy {found.model} {found.version}`"
        )


def list_models(as_json: Json = False, url: Url = None) -> None:
    """List models and what is in production."""
    with connect(url) as client:
        found = client.models()
    if as_json:
        write_json({"models": [model.raw for model in found]})
    else:
        rows = [(model.name, model.production or "none", model.version_count, model.created_at) for model in found]
        write_table(("model", "production", "versions", "created"), rows)


def show(
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", show_default=False)],
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show a model and its versions, or one version with its signature and metrics."""
    name, _, version = model.partition("@")
    with connect(url) as client:
        if version:
            _show_version(client.version(name, version), as_json)
            return
        found = client.model(name)
    if as_json:
        write_json(found.raw)
        return
    aliases = ", ".join(f"{alias} {held}" for alias, held in found.aliases.items() if held)
    slots = found.raw.get("slots") or {}
    told = ", ".join(
        f"{slot} {held or 'empty'}{' (live)' if slot == found.raw.get('live_slot') and held else ''}"
        for slot, held in slots.items()
    )
    write_fields(
        [("model", found.name), ("created", found.created_at), ("aliases", aliases or "none"), ("slots", told)]
    )
    rows = [
        (each.version, each.state, each.runtime, each.size, each.created_at, each.created_by, each.error)
        for each in found.versions
    ]
    write_table(("version", "state", "runtime", "bytes", "created", "by", "error"), rows)


def _show_version(found: ModelVersion, as_json: bool) -> None:
    if as_json:
        write_json(found.raw)
        return
    write_fields(
        [
            ("version", f"{found.model} {found.version}"),
            ("state", found.state),
            ("error", found.error),
            ("digest", found.digest),
            ("runtime", f"{found.runtime} ({found.format})"),
            ("bytes", found.size),
            ("created", found.created_at),
            ("by", found.created_by),
            ("metrics", _short(found.metrics)),
            ("lineage", _short(found.lineage)),
        ]
    )
    columns = [column for column in found.signature.get("columns") or () if isinstance(column, Mapping)]
    if columns:
        rows = [[column.get("name"), column.get("type"), _facts(column)] for column in columns]
        write_table(("column", "type", "accepts"), rows)


def _short(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_number(each)}" for name, each in value.items())


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _facts(column: Mapping[str, Any]) -> str:
    """All that a signature says of a column besides its name and type."""
    return _short({name: value for name, value in column.items() if name not in ("name", "type") and value is not None})
