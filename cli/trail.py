"""`scorehouse trail`: who did which privileged act, to what, when."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import database
from cli.connection import Json, Url, connect, load_settings
from cli.terminal import say, write_json, write_table

if TYPE_CHECKING:
    from settings import Settings


def register(app: typer.Typer) -> None:
    app.command("trail")(trail)


def trail(
    *,
    act: Annotated[str | None, typer.Option(help="One kind of act, such as token.made.", show_default=False)] = None,
    by: Annotated[str | None, typer.Option(help="Of one subject or user.", show_default=False)] = None,
    tenant: Annotated[str | None, typer.Option(help="Of one tenant.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show the audit trail, the last act first.

    Where the database is known it is that of all tenants and of the installation; with --url it is that of your tenant.
    """
    from db.trail import ACTS  # noqa: PLC0415  # see cli.connection

    if act is not None and act not in ACTS:
        raise typer.BadParameter(f"there is no act {act!r}; there are: {', '.join(ACTS)}", param_hint="--act")
    settings = load_settings()
    if database.is_asked(settings, url):
        entries = _from_database(settings, tenant, act=act, by=by, limit=limit)
    else:
        with connect(url) as client:
            entries = client.audit_trail(act=act, by=by, limit=limit)
        entries = [entry for entry in entries if tenant in (None, entry["tenant"])]
    if as_json:
        write_json({"entries": entries})
    elif not entries:
        say("The audit trail has no such entry.")
    else:
        write_table(("at", "tenant", "by", "act", "target", "details"), [_row(entry) for entry in entries])


def _from_database(settings: Settings, tenant: str | None, **wanted: Any) -> list[dict[str, Any]]:
    from api.trail import entry_document  # noqa: PLC0415  # see cli.connection
    from db import trail  # noqa: PLC0415  # as above

    with database.connected(settings) as connection:
        return [entry_document(row) for row in trail.page(connection, tenant, **wanted)]


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    details = {name: value for name, value in entry["details"].items() if value is not None}
    return (entry["at"], entry["tenant"], entry["by"], entry["act"], entry["target"], json.dumps(details))
