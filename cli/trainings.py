"""`scorehouse retrain` and `scorehouse trainings …`: champion against challenger, and how a model is retrained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from cli.connection import Json, Url, connect
from cli.terminal import say, write_fields, write_json, write_table

Name = Annotated[str, typer.Argument(help="Name of the model.", metavar="MODEL", show_default=False)]
Promotion = Literal["manual", "auto-if-better"]


def register(app: typer.Typer) -> None:
    app.command()(retrain)
    trainings = typer.Typer(help="Trainings of a model, and how it is retrained.", no_args_is_help=True)
    for name, command in (("list", list_trainings), ("show", show), ("policy", policy)):
        trainings.command(name)(command)
    app.add_typer(trainings, name="trainings")


def retrain(
    model: Name,
    trigger: Annotated[
        str | None,
        typer.Option(help="Your own name of the reason; the same one again is the same training.", show_default=False),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Train a challenger on what was scored and came true, and compare it with the version in production.

    Exits 1 with --wait when it failed; 0 also when it was skipped, which says why.
    """
    with connect(url) as client:
        found = client.retrain(model, trigger=trigger, wait=wait, progress=None if as_json else _say_state)
    if as_json:
        write_json(found)
    elif wait:
        _show(found)
    else:
        say(f"Training {found['id']} is {found['state']}; see `scorehouse trainings show {model} {found['id']}`")
    if wait and found["state"] == "failed":
        raise typer.Exit(1)


def list_trainings(
    model: Name,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List trainings, the last one first."""
    with connect(url) as client:
        found = client.trainings(model, limit)
    if as_json:
        write_json(found)
        return
    write_table(
        ("id", "trigger", "state", "champion", "challenger", "promoted", "created", "reason"),
        [
            (
                each["id"],
                each["trigger"]["kind"],
                each["state"],
                each["champion"],
                each["challenger"],
                "yes" if each["promoted"] else "no",
                each["created_at"],
                each["reason"],
            )
            for each in found
        ],
    )


def show(
    model: Name,
    training_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show a training: its rows, how both did, and what was decided."""
    with connect(url) as client:
        found = client.training(model, training_id)
    if as_json:
        write_json(found)
    else:
        _show(found)


def policy(  # noqa: PLR0917  # each is an option of the command
    model: Name,
    promotion: Annotated[
        Promotion | None, typer.Option(help="Who puts a better challenger into production.", show_default=False)
    ] = None,
    every: Annotated[
        int | None,
        typer.Option("--every-days", min=0, max=366, help="Days between trainings; 0: none.", show_default=False),
    ] = None,
    on_alert: Annotated[
        bool | None, typer.Option("--on-alert/--not-on-alert", help="Train when an alert fires.", show_default=False)
    ] = None,
    min_labelled: Annotated[
        int | None, typer.Option("--min-labelled-rows", min=1, help="With fewer it is skipped.", show_default=False)
    ] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Labelled rows to take.", show_default=False)] = None,
    max_age: Annotated[
        int | None, typer.Option("--max-age-days", min=1, help="How old they may be.", show_default=False)
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Of the challenger; '' for the champion's own.", show_default=False)
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show or change how a model is retrained."""
    given: dict[str, Any] = {
        "promotion": promotion,
        "every_days": every,
        "on_alert": on_alert,
        "min_labelled_rows": min_labelled,
        "max_rows": max_rows,
        "max_age_days": max_age,
        "recipe": recipe,
    }
    # 0 and '' say that there is to be none.
    changed = {
        name: value or (value if name == "on_alert" else None) for name, value in given.items() if value is not None
    }
    with connect(url) as client:
        found = client.set_training_policy(model, **changed) if changed else client.training_policy(model)
    if as_json:
        write_json(found)
    else:
        write_fields((name.replace("_", " "), str(value)) for name, value in found.items() if value is not None)


def _say_state(run: dict[str, Any]) -> None:
    say(f"training {run['id']} is {run['state']}")


def _show(run: dict[str, Any]) -> None:
    document = run["document"] or {}
    rows, split = document.get("rows") or {}, document.get("split") or {}
    write_fields(
        [
            ("training", run["id"]),
            ("state", run["state"]),
            ("trigger", f"{run['trigger']['kind']} {run['trigger']['key']}"),
            ("champion", run["champion"]),
            ("challenger", run["challenger"]),
            ("recipe", document.get("recipe")),
            ("rows", ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in rows.items())),
            ("hold-out", f"by {split['by']}, from {split['hold_out_from']}" if split else None),
            ("promoted", "yes" if run["promoted"] else "no"),
            ("reason", run["reason"]),
        ]
    )
    if "comparison" in document:
        _write_comparison(document)


def _write_comparison(document: dict[str, Any]) -> None:
    champion, challenger = (document[name]["metrics"] for name in ("champion", "challenger"))
    write_table(
        ("metric", "champion", "challenger"),
        [(name, _told(metric), _told(challenger.get(name))) for name, metric in champion.items()],
    )
    found = document["comparison"]
    say(f"The challenger is {found['verdict']}: {found['reason']}.")


def _told(metric: dict[str, float] | None) -> str:
    return "" if metric is None else f"{metric['value']:.4g} ({metric['low']:.4g} to {metric['high']:.4g})"
