"""`scorehouse quota …`: what a tenant may use and what it uses; the operator sets it in the database itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import database
from cli.connection import Json, Url, connect, load_settings
from cli.terminal import cell, say, write_json, write_table
from errors import InvalidInput

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Of what is counted; the rest are rates.
COUNTED = ("rows_per_day", "bytes_stored", "jobs_open", "uploads_at_once")
DEFAULT = "default"

Tenant = Annotated[str, typer.Argument(help="Whose quotas.", metavar="TENANT", show_default=False)]


def _limit(help_text: str) -> Any:
    return typer.Option(help=f"{help_text}: a number, unlimited, or default.", metavar="N", show_default=False)


def register(app: typer.Typer) -> None:
    quota = typer.Typer(help="What tenants may use, and what they use.", invoke_without_command=True)
    quota.callback()(own)
    for name, command in (("show", show), ("set", set_), ("list", list_), ("recount", recount)):
        quota.command(name)(command)
    app.add_typer(quota, name="quota")


def own(context: typer.Context, as_json: Json = False, url: Url = None) -> None:
    """Show what the tenant of your token may use and uses. The commands are the operator's: they need the database."""
    if context.invoked_subcommand is not None:
        return
    with connect(url) as client:
        document = client.quota()
    _write(document, as_json)


def show(tenant: Tenant, as_json: Json = False) -> None:
    """Show what a tenant may use and uses."""
    with database.connected(load_settings()) as connection:
        _write(_document(connection, tenant), as_json)


def set_(  # noqa: PLR0917  # each is an option of the command
    tenant: Tenant,
    rows_per_day: Annotated[str | None, _limit("Rows submitted on one day (UTC)")] = None,
    bytes_stored: Annotated[str | None, _limit("Bytes of inputs, compressed, and of artefacts")] = None,
    jobs_open: Annotated[str | None, _limit("Jobs that are not over")] = None,
    uploads_at_once: Annotated[str | None, _limit("Files that are being received")] = None,
    requests_per_second: Annotated[str | None, _limit("Requests per second, in the long run")] = None,
    burst: Annotated[str | None, _limit("Requests at once, after a pause")] = None,
    as_json: Json = False,
) -> None:
    """Set quotas of a tenant; the others stay as they are. It acts within five seconds, without a restart."""
    from db import quotas, trail  # noqa: PLC0415  # brings SQLAlchemy along

    given = {
        "rows_per_day": rows_per_day,
        "bytes_stored": bytes_stored,
        "jobs_open": jobs_open,
        "uploads_at_once": uploads_at_once,
        "requests_per_second": requests_per_second,
        "burst": burst,
    }
    wanted = {name: value for name, value in given.items() if value is not None}
    if not wanted:
        raise typer.BadParameter("name at least one quota, such as --rows-per-day 1000000")
    changes = {name: _number(name, value) for name, value in wanted.items() if value != DEFAULT}
    with database.connected(load_settings()) as connection:
        if changes:
            quotas.set_limits(connection, tenant, changes, by=database.user())
        quotas.reset_limits(connection, tenant, [name for name, value in wanted.items() if value == DEFAULT])
        details = {"limits": wanted}
        trail.record(connection, tenant=tenant, by=database.user(), act="quota.changed", target=tenant, details=details)
        document = _document(connection, tenant)
    _write(document, as_json)


def list_(as_json: Json = False) -> None:
    """List the tenants whose quotas differ from the defaults."""
    from db import quotas  # noqa: PLC0415  # as said

    with database.connected(load_settings()) as connection:
        rows = quotas.listing(connection)
    if as_json:
        listed = [{**row._mapping, "changed_at": row.changed_at.isoformat()} for row in rows]
        write_json({"tenants": listed})
    elif not rows:
        say("No tenant has quotas of its own; the defaults count for all.")
    else:
        shown = [(row.tenant, _told(row.limits), row.changed_by, row.changed_at) for row in rows]
        write_table(("tenant", "differs from the defaults in", "set by", "changed"), shown)


def recount(tenant: Tenant, as_json: Json = False) -> None:
    """Count what a tenant uses anew, from its jobs and versions. Its submissions wait meanwhile."""
    from db import usage  # noqa: PLC0415  # as said

    with database.connected(load_settings()) as connection:
        usage.recount(connection, tenant)
        document = _document(connection, tenant)
    _write(document, as_json)


def _document(connection: Connection, tenant: str) -> dict[str, Any]:
    """As `GET /v1/quota` has it, and what differs from the defaults."""
    from api.quota import quota_document  # noqa: PLC0415  # see cli.connection
    from db import quotas, usage  # noqa: PLC0415  # as said

    differing = quotas.differing(connection, tenant)
    limits = quotas.Quotas.of(load_settings()).but(differing)
    return {**quota_document(tenant, limits, usage.of(connection, tenant)), "differs": sorted(differing)}


def _write(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        write_json(document)
        return
    rows = []
    for name in COUNTED:
        each = document[name]
        until = f"again from {each['resets_at']}" if "resets_at" in each else ""
        left = "" if each["remaining"] is None else each["remaining"]
        rows.append((name.replace("_", " "), _bound(each["limit"]), cell(each["used"]), left, until))
    rate = document["requests_per_second"]
    burst = "" if rate["burst"] is None else f"up to {rate['burst']:,} at once"
    rows.append(("requests per second", _bound(rate["limit"]), "", "", burst))
    write_table((f"tenant {document['tenant']}", "limit", "used", "left", ""), rows)


def _bound(limit: int | None) -> str:
    return "unlimited" if limit is None else f"{limit:,}"


def _told(limits: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_bound(limit)}" for name, limit in limits.items())


def _number(name: str, text: str) -> int | None:
    """A limit as it is stored, None for unlimited.

    Raises:
        InvalidInput
    """
    if text == "unlimited":
        return None
    try:
        number = int(text.replace("_", "").replace(",", ""))
    except ValueError:
        number = -1
    if not 0 <= number < 2**63:
        option = "--" + name.replace("_", "-")
        raise InvalidInput(f"{option} {text}: give a number from 0, `unlimited`, or `default`")
    return number
