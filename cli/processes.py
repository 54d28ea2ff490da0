"""Commands that start processes: the whole stack, or one of them alone for production; and the schema they need."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cli import command_lines
from errors import ScorehouseError
from settings import Settings, get_settings

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Secrets, artefacts and the embedded servers' data. [.scorehouse]")
]


class Lane(StrEnum):
    interactive = "interactive"
    bulk = "bulk"
    training = "training"


def register(app: typer.Typer) -> None:
    """Add `up`, `api`, `worker`, `beat`, `flower` and `db` to the command line."""
    for command in (up, api, worker, beat, flower):
        app.command()(command)
    schema = typer.Typer(help="The database's schema.", no_args_is_help=True)
    schema.command("upgrade")(db_upgrade)
    schema.command("check")(db_check)
    app.add_typer(schema, name="db")


def up(
    workers: Annotated[int, typer.Option(min=1, help="Children of the bulk worker.")] = 2,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Of the API; 0: any free one. [8000]")] = None,
    flower_port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free one. [5555]")] = None,
    data_dir: DataDir = None,
    no_flower: Annotated[bool, typer.Option("--no-flower", help="Leave Flower out.")] = False,
) -> None:
    """Start the whole stack in this terminal; Ctrl-C drains and stops it."""
    from cli.up import run_stack  # noqa: PLC0415 - needs the embedded servers, which production has no use for

    settings = _settings(data_dir=data_dir, api_port=port, flower_port=flower_port)
    run_stack(settings, workers=workers, with_flower=not no_flower)


def api(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on. [8000]")] = None,
    data_dir: DataDir = None,
) -> None:
    """The HTTP API alone."""
    from api.verification import Verifier  # noqa: PLC0415 - the other commands need no cryptography

    settings = _settings(data_dir=data_dir, api_port=port)
    Verifier(settings)  # key files that are no good are told of in a sentence here, and by gunicorn in a traceback
    _become(command_lines.api(), settings)


def worker(
    lane: Annotated[
        list[Lane] | None, typer.Option(help="Serve this lane; repeat it for more. [interactive, bulk]")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Children that score.")] = None,
    poll: Annotated[
        bool, typer.Option("--poll", help="Ask Postgres for work; no broker and no beat are needed.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """A worker alone, for one lane or for both that score; the lane `training` has workers of its own."""
    settings = _settings(data_dir=data_dir)
    lanes = [str(each) for each in dict.fromkeys(lane or (Lane.interactive, Lane.bulk))]
    if Lane.training in lanes and len(lanes) > 1:
        raise typer.BadParameter(
            "a fit of minutes would keep scoring waiting: start another worker for it", param_hint="--lane"
        )
    children = concurrency or settings.worker_concurrency
    if poll:
        _become(command_lines.polling_worker(lanes, children), settings, command_lines.polling_environment(lanes))
    name = f"worker-{'-'.join(lanes)}-{os.getpid()}"  # several on one host must differ; the pid stays the same
    argv = command_lines.worker(lanes, children, name)
    _become(argv, settings, command_lines.worker_environment(lanes))


def beat(data_dir: DataDir = None) -> None:
    """Celery beat alone: the ticks for permits, rescues, audits and retention."""
    settings = _settings(data_dir=data_dir)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _become(command_lines.beat(settings.file_of_stack("beat-schedule")), settings)


def flower(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on. [5555]")] = None,
    data_dir: DataDir = None,
) -> None:
    """Flower alone; user `admin`, the password is made on the first start. It shows, and changes nothing."""
    from embedded.secrets import ensure_secrets  # noqa: PLC0415 - nothing else here needs it

    settings = _settings(data_dir=data_dir, flower_port=port)
    kept = settings.flower_password_file
    password = kept.read_text().strip() if kept else ensure_secrets(settings.data_dir).flower_password()
    env = {} if "FLOWER_BASIC_AUTH" in os.environ else command_lines.flower_environment(password)
    _become(command_lines.flower(settings.flower_host, settings.flower_port), settings, env)


def db_upgrade(data_dir: DataDir = None) -> None:
    """Bring the schema to what this release needs; does nothing when it is there, or further, already."""
    from migrations import check, upgrade  # noqa: PLC0415 - Alembic

    settings = _settings(data_dir=data_dir)
    login = _database_url(settings)
    url = settings.resolved_database_owner_url()
    upgrade(url, login=login)
    typer.echo(check(url).told)


def db_check(data_dir: DataDir = None) -> None:
    """Exit 0 when this release runs on the schema, also on that of a later release, and 1 when it does not."""
    from migrations import check  # noqa: PLC0415 - Alembic

    schema = check(_database_url(_settings(data_dir=data_dir)))
    typer.echo(schema.told, err=not schema.fits)
    if not schema.fits:
        raise typer.Exit(1)


def _settings(**flags: Any) -> Settings:
    """The settings, with the flags that were given in place of what the environment says."""
    return get_settings().model_copy(update={name: value for name, value in flags.items() if value is not None})


def _become(argv: list[str], settings: Settings, env: Mapping[str, str] = {}) -> NoReturn:
    """Replace this process, so that signals reach the real one directly."""
    environment = {**command_lines.settings_environment(settings), **env}
    os.execvpe(argv[0], argv, environment)  # noqa: S606 - argv is ours


def _database_url(settings: Settings) -> str:
    try:
        return settings.resolved_database_url()
    except LookupError as error:
        raise ScorehouseError(str(error)) from error
