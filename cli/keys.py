"""`scorehouse token keys|rotate|forget`: the keys that sign tokens, in the key file of the API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import database
from cli.connection import Json, load_settings
from cli.terminal import say, warn, write_json, write_table
from errors import Unauthorized, Unavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from settings import Settings


def register(group: typer.Typer) -> None:
    """Add the commands to the group `token`."""
    for name, command in (("keys", list_keys), ("rotate", rotate), ("forget", forget)):
        group.command(name)(command)


def list_keys(as_json: Json = False) -> None:
    """List the signing keys, the one that signs first."""
    from api import keys  # noqa: PLC0415  # see cli.connection

    found = keys.read(load_settings().resolved_jwt_key_file())
    now = datetime.now(UTC)
    listed = [
        {
            "kid": key.kid,
            "algorithm": key.algorithm,
            "created_at": None if key.created_at is None else key.created_at.isoformat(timespec="seconds"),
            "age_days": None if key.created_at is None else (now - key.created_at).days,
            "use": "signs" if place == 0 else "verifies",
        }
        for place, key in enumerate(found)
    ]
    if as_json:
        write_json({"keys": listed})
    else:
        write_table(("kid", "algorithm", "created", "days", "use"), [tuple(each.values()) for each in listed])


def rotate() -> None:
    """Make a new signing key. Tokens of the former ones stay good until they expire, or until `forget`."""
    from api import keys  # noqa: PLC0415  # see cli.connection
    from db import trail  # noqa: PLC0415  # as above

    settings = load_settings()
    kid = keys.rotate(settings.resolved_jwt_key_file())
    say(f"{kid} signs from now on; running APIs notice. `scorehouse token forget KID` ends a former key.")
    _on_record(
        settings,
        lambda connection: trail.record(
            connection, tenant=None, by=database.user(), act="key.rotated", target=kid, details={}
        ),
    )


def forget(kid: Annotated[str, typer.Argument(help="Id of the key.", metavar="KID", show_default=False)]) -> None:
    """End a key, all tokens that it signed, and those that were made with them over HTTP."""
    from api import keys  # noqa: PLC0415  # see cli.connection
    from db import tokens, trail  # noqa: PLC0415  # as above

    settings = load_settings()
    keys.forget(settings.resolved_jwt_key_file(), kid)
    say(f"{kid} is forgotten, and with it each token that it signed.")

    def end(connection: Connection) -> None:
        by, why = database.user(), f"the key {kid} was forgotten"
        ended = tokens.revoke_children_of_key(connection, kid, by=by, why=why)
        trail.record(
            connection, tenant=None, by=by, act="key.forgotten", target=kid, details={"revoked_children": ended}
        )

    _on_record(settings, end)
    _renew_admin_token(settings)


def _on_record(settings: Settings, act: Callable[[Connection], Any]) -> None:
    try:
        with database.connected(settings) as connection:
            act(connection)
    except Unavailable as exc:
        warn(f"The audit trail does not have this: {exc}")


def _renew_admin_token(settings: Settings) -> None:
    """The token that the command line uses here may have been signed with the key that is gone."""
    from api import issuing, tokens  # noqa: PLC0415  # see cli.connection
    from api.verification import Verifier  # noqa: PLC0415  # as above

    file = tokens.admin_token_file(settings)
    if not file.exists():
        return
    try:
        Verifier(settings).read(file.read_text().strip())
    except Unauthorized:
        try:
            with database.connected(settings) as connection:
                issuing.ensure_admin_token(connection, settings, by=database.user())
        except Unavailable:
            tokens.make_admin_token(settings)
        say(f"{file} is made anew.")
