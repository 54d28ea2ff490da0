"""The API that a command talks to: which one, and with which token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import client_settings
from client_settings import ClientSettings
from errors import InvalidInput, Unauthorized, Unavailable

if TYPE_CHECKING:
    from scorehouse_client import Client
    from settings import Settings

# Both bring libraries along that take longer to import than `--help` takes to show.
Url = Annotated[
    str | None,
    typer.Option(
        "--url", help="URL of the API.  [SCOREHOUSE_API_URL, or the stack that runs here]", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Plain JSON on standard output.")]


def connect(url: str | None) -> Client:
    """A client of the API at `url`, or of the one that the settings or the running stack name.

    Raises:
        Unavailable: none of them names one.
        Unauthorized: there is no token.
    """
    from scorehouse_client import Client  # noqa: PLC0415  # as said above

    settings = client_settings.read()
    return Client(api_url(settings, url), token(settings))


def load_settings() -> Settings:
    """All settings.

    Raises:
        InvalidInput: a variable has a value that cannot be.
    """
    from pydantic import ValidationError  # noqa: PLC0415  # as said above

    from settings import get_settings  # noqa: PLC0415  # as said above

    try:
        return get_settings()
    except ValidationError as exc:
        wrong = "".join(f"\n  - SCOREHOUSE_{str(e['loc'][0]).upper()}: {e['msg']}" for e in exc.errors())
        raise InvalidInput(f"the settings (environment or .env) are wrong:{wrong}") from exc


def api_url(settings: ClientSettings, url: str | None) -> str:
    """Raises Unavailable when none is known."""
    found = url or settings.api_url or client_settings.running_stack(settings.data_dir).get("api_url")
    if not found:
        raise Unavailable(
            f"no API is known: no stack runs from {settings.data_dir}. Start one with `scorehouse up`, name its folder with "
            "SCOREHOUSE_DATA_DIR, or give the URL of an API with --url or SCOREHOUSE_API_URL"
        )
    return str(found)


def token(settings: ClientSettings) -> str:
    """Raises Unauthorized when there is none."""
    if settings.token is not None:
        return settings.token
    file = settings.data_dir / "admin.token"
    try:
        return file.read_text().strip()
    except OSError as exc:
        raise Unauthorized(
            f"no token: set SCOREHOUSE_TOKEN (whoever runs the API makes one with `scorehouse token create`); "
            f"{file} cannot be read either: {exc.strerror}"
        ) from exc
