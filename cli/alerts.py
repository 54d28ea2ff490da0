"""`scorehouse alerts …`: what stands, and that somebody has seen it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.connection import Json, Url, connect
from cli.options import as_of_text
from cli.terminal import say, write_json, write_table

AlertId = Annotated[str, typer.Argument(help="Id of the alert.", metavar="ID", show_default=False)]
State = Literal["pending", "firing", "acknowledged", "suppressed", "resolved", "ok"]


def register(app: typer.Typer) -> None:
    alerts = typer.Typer(help="Alerts of the audits.", no_args_is_help=True)
    for name, command in (("list", list_alerts), ("ack", ack), ("suppress", suppress)):
        alerts.command(name)(command)
    app.add_typer(alerts, name="alerts")


def list_alerts(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Of one model.", show_default=False)] = None,
    state: Annotated[State | None, typer.Option(help="In one state.  [all that are open]", show_default=False)] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List alerts, the last changed first."""
    with connect(url) as client:
        found = client.alerts(model, state)
    if as_json:
        write_json({"alerts": found})
    elif not found:
        say("No alert is open." if state is None else f"No alert is {state}.")
    else:
        write_table(
            ("id", "model", "column", "check", "state", "severity", "value", "changed"),
            [
                (
                    each["id"],
                    f"{each['model']} {each['model_version']}",
                    each["column"] or "(all)",
                    each["check"],
                    each["state"],
                    each["severity"],
                    "" if each["value"] is None else f"{each['value']:.4g}",
                    each["changed_at"],
                )
                for each in found
            ],
        )


def ack(alert_id: AlertId, url: Url = None) -> None:
    """Say that somebody looks after an alert: it stays quiet until it resolves or gets worse."""
    with connect(url) as client:
        found = client.acknowledge(alert_id)
    say(f"{found['check']} of {found['column'] or 'the data set'} ({found['model']}) is {found['state']}.")


def suppress(
    alert_id: AlertId,
    until: Annotated[str, typer.Option("--until", help="A date or a time.", metavar="TIME")],
    url: Url = None,
) -> None:
    """Hear nothing of an alert until a time."""
    with connect(url) as client:
        found = client.suppress(alert_id, as_of_text(until) or until)
    say(f"{found['check']} of {found['column'] or 'the data set'} ({found['model']}) is {found['state']}.")
