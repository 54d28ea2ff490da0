"""`scorehouse secrets create`: the secrets that `docker-compose.yml` hands to its services, each in a file."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from cli.terminal import say
from settings import Settings

METRICS_DAYS = 3650


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Secrets of an installation in containers.", no_args_is_help=True)

    # A group of one command would otherwise lose its name.
    @group.callback()
    def only() -> None:
        pass

    group.command("create")(create)
    app.add_typer(group, name="secrets")


def create(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to; made if it does not exist.")],
) -> None:
    """Make the secrets that are not there yet. Those that are there stay as they are.

    The folder is readable for its owner only; the files in it are readable for all, because an engine shows them to
    services as they are, and those run as other users.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = [name for name, content in _contents(folder).items() if _written(folder / name, content)]
    say(f"{len(made)} secrets made in {folder}: {', '.join(made)}" if made else f"{folder} has all secrets already")


def _contents(folder: Path) -> dict[str, Callable[[], str]]:
    """By file name; the ones that repeat a password come after the file that has it."""

    def kept(name: str) -> str:
        return (folder / name).read_text().strip()

    return {
        "postgres_password": _random,
        "redis_password": _random,
        "grafana_password": _random,
        "flower_password": _random,
        "scorehouse_jwt_key": lambda: secrets.token_urlsafe(48),
        "scorehouse_database_owner_url": lambda: (
            f"postgresql://scorehouse:{kept('postgres_password')}@postgres:5432/scorehouse"
        ),
        # Of the user that `scorehouse db upgrade` makes for the API and the workers.
        "scorehouse_database_url": lambda: f"postgresql://scorehouse_app:{_random()}@postgres:5432/scorehouse",
        "scorehouse_broker_url": lambda: f"redis://:{kept('redis_password')}@redis:6379/0",
        "redis_conf": lambda: f"requirepass {kept('redis_password')}\n",
        "scorehouse_metrics_token": lambda: _metrics_token(folder / "scorehouse_jwt_key"),
    }


def _random() -> str:
    return secrets.token_urlsafe(24)


def _metrics_token(key: Path) -> str:
    from api.tokens import make_token  # noqa: PLC0415  # brings cryptography along

    # It opens figures alone, and a scrape that stops after a year tells nobody why: longer than other tokens may live.
    life = timedelta(days=METRICS_DAYS)
    settings = Settings(jwt_key_file=key)
    return make_token(settings, subject="prometheus", scopes=["metrics:read"], ttl=life, longest=life).text


def _written(path: Path, content: Callable[[], str]) -> bool:
    if path.exists():
        return False
    path.write_text(content())
    path.chmod(0o444)
    return True
