"""`scorehouse models …`: look versions up; `cli.registration` registers them, `cli.deployments` deploys them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import deployments
from cli.connection import Json, Url, connect
from cli.registration import ModelAtVersion, model_at_version, register_version, signature
from cli.terminal import write_fields, write_json, write_table
from cli.validation import validate

if TYPE_CHECKING:
    from scorehouse_client import ModelVersion


Name = Annotated[str, typer.Argument(help="Name of the model.", metavar="MODEL", show_default=False)]


def register(app: typer.Typer) -> None:
    models = typer.Typer(help="Register model versions, deploy them, look them up.", no_args_is_help=True)
    for name, command in (
        ("register", register_version),
        ("list", list_models),
        ("show", show),
        ("signature", signature),
        ("metrics", metrics),
        ("validate", validate),
        *deployments.COMMANDS,
    ):
        models.command(name)(command)
    app.add_typer(models, name="models")


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
        (each.version, each.stage, each.runtime, each.size, each.created_at, each.created_by, each.error)
        for each in found.versions
    ]
    write_table(("version", "stage", "runtime", "bytes", "created", "by", "error"), rows)


def _show_version(found: ModelVersion, as_json: bool) -> None:
    if as_json:
        write_json(found.raw)
        return
    write_fields(
        [
            ("version", f"{found.model} {found.version}"),
            ("stage", found.stage),
            ("error", found.error),
            ("digest", found.digest),
            ("runtime", f"{found.runtime} ({found.format})"),
            ("compiled", _compiled(found.compiled)),
            ("quantised", _quantised(found.compiled.get("quantised"))),
            ("accelerated", _accelerated(found.compiled.get("accelerated") or {})),
            ("bytes", found.size),
            ("created", found.created_at),
            ("by", found.created_by),
            ("metrics", _short(found.metrics)),
            *((name, _short(told) if isinstance(told, Mapping) else told) for name, told in found.lineage.items()),
        ]
    )
    columns = [column for column in found.signature.get("columns") or () if isinstance(column, Mapping)]
    if columns:
        rows = [[column.get("name"), column.get("type"), _facts(column)] for column in columns]
        write_table(("column", "type", "accepts"), rows)


def metrics(model: ModelAtVersion, as_json: Json = False, url: Url = None) -> None:
    """Show how well a version did: at its registration, and at each accuracy audit since."""
    name, version = model_at_version(model)
    with connect(url) as client:
        history = client.version_metrics(name, version)
    if as_json:
        write_json({"model": name, "version": version, "metrics": history})
        return
    rows = [
        (
            each["at"],
            each["source"],
            each["window"] and f"{each['window']['start']} to {each['window']['end']}",
            each["rows"],
            each["status"],
            _short({metric: found["value"] for metric, found in each["metrics"].items()}),
        )
        for each in history
    ]
    write_table(("when", "source", "window", "labelled rows", "status", "metrics"), rows)


def _compiled(found: Mapping[str, Any]) -> str | None:
    """What a compiled form is worth, or why there is none; nothing for a version of an older release."""
    if not found.get("lanes"):
        return f"no: {found['reason']}" if found.get("reason") else None
    worth = _worth(found["seconds"], "sklearn", "onnx", found["lanes"])
    return (
        f"{worth}; {found['rows'] + found['probes']:,} rows compared, {found['flips']} of another class, "
        f"largest difference {found['max_difference']:.2g}"
    )


def _quantised(found: Mapping[str, Any] | None) -> str | None:
    """What a form in lower precision is worth, or why there is none; nothing if none was asked for."""
    if found is None:
        return None
    if not found["lanes"]:
        return f"no: {found['reason']}"
    kept = found["tried"][found["precision"]]
    return (
        f"{found['precision']}, {_worth(kept['seconds'], 'otherwise', 'this', found['lanes'])}; {found['rows']:,} rows compared, "
        f"{kept['flips']} of another class, largest difference {kept['max_difference']:.2g} ({found['permitted']:.2g} permitted)"
    )


def _worth(seconds: Mapping[str, Any], before: str, after: str, lanes: Sequence[str]) -> str:
    return ", ".join(
        f"{lane} {taken[before] / taken[after]:.3g} times as fast{'' if lane in lanes else ' (not used)'}"
        for lane, taken in seconds.items()
    )


def _accelerated(found: Mapping[str, Any]) -> str | None:
    told = [
        f"{lane} on {each['provider']}, {each['processor'] / each['accelerator']:.3g} times as fast"
        for lane, each in found.items()
    ]
    return ", ".join(told) or None


def _short(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_number(each)}" for name, each in value.items())


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _facts(column: Mapping[str, Any]) -> str:
    """All that a signature says of a column besides its name and type."""
    return _short({name: value for name, value in column.items() if name not in ("name", "type") and value is not None})
