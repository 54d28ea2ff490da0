"""`scorehouse audit …` and `scorehouse history`: did the inputs drift, did the scores come true, why this score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.connection import Json, Url, connect
from cli.options import as_of_text, destination_of
from cli.terminal import say, write_fields, write_json, write_table
from errors import NotFound

if TYPE_CHECKING:
    from scorehouse_client.audits import AuditKind

Name = Annotated[str, typer.Argument(help="Name of the model.", metavar="MODEL", show_default=False)]
Length = Annotated[str, typer.Option("--window", help="How long: 24h, 7d, 4w.")]
End = Annotated[
    str | None, typer.Option("--end", help="Where the window ends.  [now]", show_default=False, metavar="TIME")
]
Version = Annotated[str | None, typer.Option(help="Version of the model.  [the one in production]", show_default=False)]
Alerting = Annotated[bool, typer.Option("--alert", help="Let what is found move the model's alerts.")]
Failing = Annotated[
    Literal["warn", "critical", "never"], typer.Option("--fail-on", help="Status from which the command exits 1.")
]

Kind = Annotated[Literal["drift", "accuracy", "domain"], typer.Option(help="Of which kind.")]

SEVERITY = {"warn": 1, "critical": 2}
STYLES = {"ok": "green", "warn": "yellow", "critical": "bold red"}


def register(app: typer.Typer) -> None:
    audit = typer.Typer(help="Audit what was scored.", no_args_is_help=True)
    for name, command in (
        ("drift", drift),
        ("accuracy", accuracy),
        ("domain", domain),
        ("list", list_audits),
        ("report", report),
        ("schedule", schedule),
    ):
        audit.command(name)(command)
    app.add_typer(audit, name="audit")
    app.command("history")(history)


def drift(  # noqa: PLR0917  # each is an option of the command
    model: Name,
    window: Length = "24h",
    end: End = None,
    version: Version = None,
    alert: Alerting = False,
    fail_on: Failing = "critical",
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Compare what was scored with the reference, column by column. Exits 1 when the status is critical."""
    _conclude(_audited("drift", model, window, end, version, alert, as_json, url), fail_on)


def accuracy(  # noqa: PLR0917  # each is an option of the command
    model: Name,
    window: Length = "24h",
    end: End = None,
    version: Version = None,
    alert: Alerting = False,
    fail_on: Failing = "critical",
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Compare scores with the labels that came. Exits 1 when the status is critical."""
    _conclude(_audited("accuracy", model, window, end, version, alert, as_json, url), fail_on)


def domain(  # noqa: PLR0917  # each is an option of the command
    model: Name,
    window: Length = "24h",
    end: End = None,
    version: Version = None,
    alert: Alerting = False,
    fail_on: Failing = "critical",
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Try to tell scored rows from those of the reference: finds what no column shows alone."""
    _conclude(_audited("domain", model, window, end, version, alert, as_json, url), fail_on)


def list_audits(
    model: Name,
    kind: Kind = "drift",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List audits, the newest window first."""
    with connect(url) as client:
        found = client.audits(model, kind, limit)
    if as_json:
        write_json({"audits": found})
        return
    write_table(
        ("window end", "window start", "version", "status", "audited"),
        [
            (each["window"]["end"], each["window"]["start"], each["model_version"], each["status"], each["finished_at"])
            for each in found
        ],
    )


def report(
    model: Name,
    kind: Kind = "drift",
    window: Annotated[
        str | None, typer.Option("--window", help="The last one of this length.  [of any]", show_default=False)
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", help="File to write; - for standard output.")
    ] = "report.html",
    url: Url = None,
) -> None:
    """Write the last audit as a page of HTML that needs nothing else: columns, distributions, history."""
    from scorehouse_client.destination import check, opened  # noqa: PLC0415  # see cli.connection

    destination = destination_of(output, None)
    check(destination)
    with connect(url) as client:
        found = client.audits(model, kind, 1, window)
        if not found:
            of_window = "" if window is None else f" --window {window}"
            raise NotFound(
                f"there is no such audit of model {model!r} yet; ask for one: `scorehouse audit {kind} {model}{of_window}`"
            )
        page = client.audit_report(found[0]["id"])
    with opened(destination) as (file, _):
        file.write(page)
    where = "standard output" if output == "-" else Path(output).resolve()
    say(f"The {kind} report of {_window_of(found[0])} is in {where}.")


def schedule(  # noqa: PLR0917  # each is an option of the command
    model: Name,
    every: Annotated[int | None, typer.Option("--every-hours", min=1, help="Hours between audits.")] = None,
    window: Annotated[int | None, typer.Option("--window-hours", min=1, help="Hours that each looks at.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="How much worse than the reference accuracy may be.")
    ] = None,
    horizon: Annotated[int | None, typer.Option("--horizon-days", min=1, help="Without a label for so long …")] = None,
    negative: Annotated[str | None, typer.Option("--negative-label", help="… the truth is this.")] = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Whether beat audits the model.")] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show or change how a model is audited by schedule."""
    given = {
        "every_hours": every,
        "window_hours": window,
        "tolerance": tolerance,
        "horizon_days": horizon,
        "negative_label": negative,
        "enabled": enabled,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    with connect(url) as client:
        found = client.set_audit_policy(model, **changed) if changed else client.audit_policy(model)
    if as_json:
        write_json(found)
    else:
        write_fields((name.replace("_", " "), str(value)) for name, value in found.items() if value is not None)


def history(
    model: Name,
    key: Annotated[str, typer.Argument(help="Your own id of the record.", metavar="KEY", show_default=False)],
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show every prediction of one record: when, by which version, from which inputs, and what came true."""
    with connect(url) as client:
        found = client.history(model, key)
    if as_json:
        write_json(found)
        return
    if not found["predictions"]:
        say(f"No prediction of {key!r} is stored.")
    for each in found["predictions"]:
        probability = each["probability"]
        write_fields(
            [
                ("prediction", each["prediction"]),
                ("probability", None if probability is None else ", ".join(f"{value:.4f}" for value in probability)),
                ("version", each["model_version"]),
                ("scored at", each["scored_at"]),
                ("as of", each["as_of"]),
                ("label", each["label"]),
                ("inputs", ", ".join(f"{name}={value}" for name, value in (each["inputs"] or {}).items())),
                ("id", each["prediction_id"]),
            ]
        )


def _audited(  # noqa: PLR0917  # each is an option of the command
    kind: AuditKind,
    model: str,
    window: str,
    end: str | None,
    version: str | None,
    alert: bool,
    as_json: bool,
    url: str | None,
) -> dict[str, Any]:
    with connect(url) as client:
        document = client.audit(model, kind, window=window, end=as_of_text(end), version=version, alert=alert)
    if as_json:
        write_json(document)
    elif kind == "accuracy":
        write_accuracy(document)
    else:
        write_drift(document)
    return document


def write_drift(document: dict[str, Any]) -> None:
    """A drift audit as a person reads it: the worst columns first."""
    rank = {"critical": 0, "warn": 1, "advisory": 2}
    columns = sorted(document["columns"], key=lambda each: (rank.get(each["status"], 3), each["name"]))
    write_table(
        ("column", "check", "value", "warn", "critical", "status"),
        [
            (
                each["name"],
                each["statistic"],
                _number(each["value"]),
                _number(each["warn"]),
                _number(each["critical"]),
                each["status"],
            )
            for each in columns
        ],
    )
    _say_status(document, f"{document['rows']:,} rows")


def write_accuracy(document: dict[str, Any]) -> None:
    """An accuracy audit as a person reads it."""
    reference, estimated = document["reference"] or {}, document["estimated"]
    write_table(
        ("metric", "value", "low", "high", "reference", "estimated without labels"),
        [
            (
                name,
                _number(metric["value"]),
                _number(metric["low"]),
                _number(metric["high"]),
                _number(reference.get(name)),
                _number((estimated.get(name) or {}).get("value")),
            )
            for name, metric in document["metrics"].items()
        ],
    )
    if len(document["by_version"]) > 1:
        _write_versions(document["by_version"])
    _say_status(document, f"{document['labelled']:,} of {document['scored']:,} predictions labelled")


def _write_versions(versions: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for each in versions for name in each["metrics"]))
    write_table(
        ("version", "scored", "labelled", *names),
        [
            (each["version"], each["scored"], each["labelled"], *(_number(each["metrics"].get(name)) for name in names))
            for each in versions
        ],
    )


def _say_status(document: dict[str, Any], detail: str) -> None:
    say(
        f"{_window_of(document)}: {document['status'].replace('_', ' ')} ({detail})",
        style=STYLES.get(document["status"], ""),
    )


def _window_of(document: dict[str, Any]) -> str:
    window = document["window"]
    return f"{document['model']} {document['model_version']}, {window['start'][:16]} to {window['end'][:16]}"


def _conclude(document: dict[str, Any], fail_on: str) -> None:
    if fail_on != "never" and SEVERITY.get(document["status"], 0) >= SEVERITY[fail_on]:
        raise typer.Exit(1)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
