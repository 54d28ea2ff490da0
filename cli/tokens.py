"""`scorehouse token create`: bearer tokens, signed with the key of this installation."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import typer

from cli.connection import load_settings
from cli.terminal import say, standard_output
from errors import InvalidInput, Unavailable

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def register(app: typer.Typer) -> None:
    tokens = typer.Typer(help="Bearer tokens of the API.", no_args_is_help=True)

    # A group of one command would otherwise lose its name.
    @tokens.callback()
    def group() -> None:
        pass

    tokens.command("create")(create)
    app.add_typer(tokens, name="token")


def create(
    tenant: Annotated[str, typer.Option(help="Whose data the token opens.")],
    scope: Annotated[
        list[str], typer.Option(help="What it may do, such as jobs:write; repeat it or separate with commas.")
    ],
    ttl: Annotated[str, typer.Option(help="How long it is good for: 30d, 12h, 45m.")] = "30d",
    subject: Annotated[
        str | None, typer.Option(help="Who uses it; stands in the history.  [the tenant]", show_default=False)
    ] = None,
) -> None:
    """Make a token and print it; it is stored nowhere."""
    from api.tokens import create_token  # noqa: PLC0415  # brings cryptography along

    life = duration(ttl)
    scopes = sorted({part for each in scope for part in each.replace(",", " ").split()})
    settings = load_settings()
    try:
        token = create_token(settings, subject=subject or tenant, tenant=tenant, scopes=scopes, ttl=life)
    except ValueError as exc:
        raise InvalidInput(str(exc)) from exc
    except FileNotFoundError as exc:
        raise Unavailable(
            f"there is no signing key at {exc.filename}: start a stack once with `scorehouse up`, or name the key of the API "
            "with SCOREHOUSE_JWT_KEY_FILE"
        ) from exc
    standard_output().print(token, soft_wrap=True)
    say(f"Good for {ttl}, tenant {tenant}, scopes {' '.join(scopes)}. Keep it secret; use it as SCOREHOUSE_TOKEN.")


def duration(text: str) -> timedelta:
    """`30d`, `12h`, `45m` or `90s`."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if not found:
        raise typer.BadParameter(f"{text!r} is no duration like 30d, 12h, 45m or 90s", param_hint="--ttl")
    return timedelta(**{UNITS[found[2]]: int(found[1])})
