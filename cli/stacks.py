"""`scorehouse stacks …`: which of two stacks nginx shows to clients, and how to change that."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import client_settings
from cli import connection
from cli.connection import Json
from cli.database import user
from cli.terminal import say, standard_error, write_fields, write_json, write_table

if TYPE_CHECKING:
    from deployment.stacks.checks import Check
    from deployment.stacks.config import Config
    from deployment.stacks.history import Entry

File = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="The stacks file.  [SCOREHOUSE_STACKS_FILE, or stacks.yml]", show_default=False),
]
Why = Annotated[str | None, typer.Option("--why", help="A reason, kept in the history.", show_default=False)]


class Name(StrEnum):
    blue = "blue"
    green = "green"


def register(app: typer.Typer) -> None:
    stacks = typer.Typer(help="Two stacks of two releases behind nginx.", no_args_is_help=True)
    for command in (status, idle, switch, rollback):
        stacks.command()(command)
    app.add_typer(stacks, name="stacks")


def status(file: File = None, as_json: Json = False) -> None:
    """Show which stack answers, and whether both are ready; exits 1 when the one that should answer does not."""
    from deployment.stacks.switch import status as examine  # noqa: PLC0415  # see cli.connection

    found = examine(_config(file))
    if as_json:
        write_json(found)
    else:
        _show(found)
    if not found["ok"]:
        raise typer.Exit(1)


def idle(file: File = None) -> None:
    """Print the stack that clients do not reach, which is where the next release goes."""
    from deployment.stacks.nginx import active  # noqa: PLC0415  # see cli.connection

    typer.echo("green" if active(_config(file)) == Name.blue else "blue")


def switch(
    to: Annotated[Name, typer.Argument(help="The stack that is to answer.", metavar="blue|green", show_default=False)],
    why: Why = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Examine a stack and, if all is well, have nginx send clients to it; exits 1 when it was refused."""
    from deployment.stacks.switch import switch as run  # noqa: PLC0415  # see cli.connection

    token = connection.token(client_settings.read())
    _end(run(_config(file), to.value, who=user(), why=why, token=token, watch=_watch), as_json)


def rollback(why: Why = None, file: File = None, as_json: Json = False) -> None:
    """Undo the last switch, at once; exits 1 when the stack before it is not ready."""
    from deployment.stacks.switch import rollback as run  # noqa: PLC0415  # see cli.connection

    _end(run(_config(file), who=user(), why=why, watch=_watch), as_json)


def _config(file: Path | None) -> Config:
    from deployment.stacks.config import load  # noqa: PLC0415  # see cli.connection

    return load(file or connection.load_settings().stacks_file)


def _watch(check: Check) -> None:
    """A line per step, as it ends, for the person who waits."""
    mark = "ok    " if check.ok else "FAILED"
    standard_error().print(f"{mark} {check.name} ({check.seconds:.1f} s): {check.detail}", soft_wrap=True)


def _end(entry: Entry, as_json: bool) -> None:
    if as_json:
        write_json(entry.as_json())
    if not entry.ok:
        say(f"Not switched: {entry.checks[-1].detail}", style="red")
        raise typer.Exit(1)
    say(f"{entry.to_stack} answers, after {entry.seconds:.1f} s.")
    if entry.kind == "switch" and entry.from_stack not in (None, entry.to_stack):
        say(f"{entry.from_stack} still runs; `scorehouse stacks rollback` goes back to it.")


def _show(found: dict[str, Any]) -> None:
    last = found["last"]
    write_fields(
        [
            ("active", found["active"] or "neither"),
            ("answering", found["answering"]),
            ("draining", found["draining"]),
            (
                "last switch",
                last and f"{last['at']} by {last['who']}: {last['from']} to {last['to']} {last['why'] or ''}",
            ),
        ]
    )
    write_table(
        ("stack", "url", "release", "ready", "detail"),
        [
            (name, stack["url"], stack["release"], "yes" if stack["ready"] else "no", stack["detail"])
            for name, stack in found["stacks"].items()
        ],
    )
