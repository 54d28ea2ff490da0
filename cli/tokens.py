"""`scorehouse token …`: make, list, revoke and look at bearer tokens.

Whoever has the signing key makes tokens for any tenant, and whoever has the database sees and revokes them all. With
`--url`, or where only an API is known, the API does it, for the tenant of the caller's own token.
"""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

import client_settings
from cli import database, keys
from cli.connection import Json, Url, connect, load_settings
from cli.connection import token as own_token
from cli.terminal import say, standard_output, warn, write_fields, write_json, write_table
from errors import InvalidInput, Unauthorized, Unavailable

if TYPE_CHECKING:
    from settings import Settings

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
Subject = Annotated[str | None, typer.Option(help="Only those of one subject.", show_default=False)]
Tenant = Annotated[str | None, typer.Option(help="Only those of one tenant.", show_default=False)]
Why = Annotated[str | None, typer.Option(help="For the audit trail.", show_default=False)]
_COLUMNS = ("jti", "tenant", "subject", "scopes", "made by", "expires", "state")
_LISTED = 1000


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Bearer tokens of the API, and the keys that sign them.", no_args_is_help=True)
    for name, command in (("create", create), ("list", list_tokens), ("show", show), ("revoke", revoke)):
        group.command(name)(command)
    keys.register(group)
    app.add_typer(group, name="token")


def create(
    tenant: Annotated[str, typer.Option(help="Whose data the token opens.")],
    scope: Annotated[
        list[str], typer.Option(help="What it may do, such as jobs:write; repeat it or separate with commas.")
    ],
    ttl: Annotated[str, typer.Option(help="How long it is good for: 30d, 12h, 45m.")] = "30d",
    subject: Annotated[
        str | None, typer.Option(help="Who uses it; stands in the audit trail.  [the tenant]", show_default=False)
    ] = None,
) -> None:
    """Make a token with the signing key and print it; it is stored nowhere."""
    life = duration(ttl)
    scopes = sorted({part for each in scope for part in each.replace(",", " ").split()})
    wanted = {"subject": subject or tenant, "tenant": tenant, "scopes": scopes, "ttl": life}
    try:
        made = _made(load_settings(), wanted)
    except ValueError as exc:
        raise InvalidInput(str(exc)) from exc
    standard_output().print(made.text, soft_wrap=True)
    say(
        f"Good for {ttl}, tenant {tenant}, scopes {' '.join(scopes)}, jti {made.jti}. Keep it secret; use it as "
        "SCOREHOUSE_TOKEN."
    )


def list_tokens(tenant: Tenant = None, subject: Subject = None, as_json: Json = False, url: Url = None) -> None:
    """List the tokens on record, the last made first; of all tenants, or those of your own through the API."""
    settings = load_settings()
    direct = database.is_asked(settings, url)
    found = _from_database(settings, tenant, subject) if direct else _from_api(url, tenant, subject)
    if len(found) == _LISTED:
        warn(f"These are the last {_LISTED:,}; name a --tenant or a --subject to see others.")
    if as_json:
        write_json({"tokens": found})
    elif not found:
        say("No token is on record.")
    else:
        write_table(_COLUMNS, [_row(each) for each in found])


def revoke(
    jti: Annotated[str | None, typer.Argument(help="Id of the token.", metavar="JTI", show_default=False)] = None,
    subject: Annotated[
        str | None, typer.Option(help="All tokens on record of this subject.", show_default=False)
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="With --subject: of one tenant.", show_default=False)] = None,
    why: Why = None,
    url: Url = None,
) -> None:
    """End a token, and those that were made with it, within seconds; by its id also one that is not on record."""
    if (jti is None) == (subject is None):
        raise typer.BadParameter("name a token by its id, or all of a --subject", param_hint="JTI")
    settings = load_settings()
    if not database.is_asked(settings, url):
        count = _revoke_through_api(url, jti, subject, why)
    else:
        from db import tokens  # noqa: PLC0415  # see cli.connection

        with database.connected(settings) as connection:
            if jti is not None:
                count = tokens.revoke(connection, None, jti, by=database.user(), why=why)
            else:
                count = tokens.revoke_subject(connection, tenant, str(subject), by=database.user(), why=why)
    if subject is not None and not count:
        raise InvalidInput(f"no good token of {subject!r} is on record; revoke one that is not by its jti")
    say(f"{count} revoked; every API process refuses them within 5 s." if count else "It was revoked already.")


def show(
    source: Annotated[
        str | None,
        typer.Argument(
            help="- to read it from standard input.  [SCOREHOUSE_TOKEN, else the admin's]",
            metavar="[-]",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is in a token and whether it is good; exit 1 if it is not. The token itself is never printed."""
    if source not in (None, "-"):
        raise typer.BadParameter("a token on a command line is seen by others: pipe it in, or set SCOREHOUSE_TOKEN")
    settings = load_settings()
    document = _shown(settings, sys.stdin.read().strip() if source == "-" else own_token(client_settings.read()))
    if as_json:
        write_json(document)
    else:
        write_fields((name, ", ".join(value) if isinstance(value, list) else value) for name, value in document.items())
    if document["state"] != "good":
        raise typer.Exit(1)


def duration(text: str) -> timedelta:
    """`30d`, `12h`, `45m` or `90s`."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if not found:
        raise typer.BadParameter(f"{text!r} is no duration like 30d, 12h, 45m or 90s", param_hint="--ttl")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def _made(settings: Settings, wanted: dict[str, Any]) -> Any:
    """A token, on record if the database can be reached."""
    from api.issuing import issue  # noqa: PLC0415  # see cli.connection
    from api.tokens import make_token  # noqa: PLC0415  # as above

    if database.is_known(settings):
        try:
            with database.connected(settings) as connection:
                return issue(connection, settings, by=database.user(), **wanted)
        except Unavailable as exc:
            reason = str(exc)
    else:
        reason = "no database is known here"
    made = make_token(settings, **wanted)
    warn(f"Not on record ({reason}): `token list` does not show it; `token revoke {made.jti}` ends it all the same.")
    return made


def _from_database(settings: Settings, tenant: str | None, subject: str | None) -> list[dict[str, Any]]:
    from api.token_routes import token_document  # noqa: PLC0415  # see cli.connection
    from db import tokens  # noqa: PLC0415  # as above

    with database.connected(settings) as connection:
        rows = tokens.page(connection, tenant, subject=subject, limit=_LISTED)
        return [token_document(row) for row in rows]


def _from_api(url: str | None, tenant: str | None, subject: str | None) -> list[dict[str, Any]]:
    with connect(url) as client:
        return [each for each in client.tokens(subject=subject) if tenant in (None, each["tenant"])]


def _revoke_through_api(url: str | None, jti: str | None, subject: str | None, why: str | None) -> int:
    with connect(url) as client:
        named = [jti] if jti is not None else [each["jti"] for each in client.tokens(subject=subject) if _good(each)]
        for each in named:
            client.revoke_token(each, why=why)
    return len(named)


def _good(document: dict[str, Any]) -> bool:
    return _state(document) == "good"


def _state(document: dict[str, Any]) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415  # needed for lists alone

    if document["revoked_at"] is not None:
        return f"revoked by {document['revoked_by']}"
    expires = document["expires_at"]
    return "expired" if expires is not None and datetime.fromisoformat(expires) <= datetime.now(UTC) else "good"


def _row(document: dict[str, Any]) -> tuple[object, ...]:
    made_by, scopes = document["created_by"], " ".join(document["scopes"])
    names = (document["jti"], document["tenant"], document["subject"], scopes, made_by)
    return (*names, document["expires_at"], _state(document))


def _shown(settings: Settings, token: str) -> dict[str, Any]:
    from api.verification import Verifier, parsed  # noqa: PLC0415  # see cli.connection

    header, claims = parsed(token)
    names = ("sub", "tenant", "scope", "jti", "iss", "aud", "iat", "nbf", "exp")
    document = {"kid": header.get("kid"), **{name: claims[name] for name in names if name in claims}}
    try:
        verifier = Verifier(settings)
    except Unavailable as exc:
        return {**document, "state": "unchecked", "reason": str(exc)}
    try:
        jti = verifier.read(token).jti
        kids = verifier.kids()
    except Unauthorized as exc:
        return {**document, "state": "refused", "reason": str(exc)}
    return {**document, **_standing(settings, jti, kids)}


def _standing(settings: Settings, jti: str, kids: list[str]) -> dict[str, str]:
    """Whether a token whose signature is good was revoked."""
    from db import tokens  # noqa: PLC0415  # see cli.connection

    try:
        with database.connected(settings) as connection:
            is_revoked = jti in tokens.revoked(connection, kids)
    except Unavailable as exc:
        return {"state": "good", "reason": f"its signature is; whether it was revoked is not known: {exc}"}
    return {"state": "revoked" if is_revoked else "good"}
