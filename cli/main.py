"""The `scorehouse` command: what its parts are, and how their errors become messages and exit codes.

Exit codes: 0 good, 1 the check or the job failed or something could not be done, 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from cli.terminal import say
from errors import ScorehouseError


def main() -> None:
    """Entry point of the `scorehouse` script."""
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, the process's own by default, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter must not end the command.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # both are TextIOWrapper
    return _flushed(_run(arguments))


# Which module a word on the command line is in. Each word brings its module's libraries along, so a command imports only
# its own: a rollback is typed in a hurry.
PARTS = {
    "score": "scoring",
    "history": "audits",
    "jobs": "jobs",
    "models": "models",
    "labels": "labels",
    "audit": "audits",
    "alerts": "alerts",
    "train": "training",
    "retrain": "trainings",
    "trainings": "trainings",
    "stacks": "stacks",
    "up": "processes",
    "api": "processes",
    "worker": "processes",
    "beat": "processes",
    "flower": "processes",
    "db": "processes",
    "backup": "backups",
    "restore": "backups",
    "demo": "demo",
    "doctor": "doctor",
    "healthcheck": "healthcheck",
    "token": "tokens",
    "trail": "trail",
    "quota": "quota",
    "secrets": "secrets",
}


def build(word: str | None = None) -> typer.Typer:
    """The command line: with all its commands, or with those of the module that `word` is in."""
    app = typer.Typer(
        help="Score records with machine-learning models, in bulk and durably.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        # Plain help: brackets stay what they are, and it comes sooner.
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", help="Print the version and exit.", is_eager=True, callback=_version
        ),
    ) -> None:
        pass

    for part in dict.fromkeys(PARTS.values() if word not in PARTS else [PARTS[word]]):
        import_module(f"cli.{part}").register(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  # takes time

        typer.echo(version("scorehouse"))
        raise typer.Exit


def _run(arguments: Sequence[str] | None) -> int:
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        build(given[0] if given else None)(args=given, prog_name="scorehouse")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except KeyboardInterrupt:
        return 130
    except Exception as exc:
        message = _message(exc)
        if message is None:
            raise
        say(message, style="red")
        return 1
    return 0


def _message(exc: Exception) -> str | None:
    """What to tell a person; None for what is a fault of ours and needs its traceback."""
    from scorehouse_client.errors import ScorehouseClientError  # noqa: PLC0415  # only needed here

    if isinstance(exc, ScorehouseError | ScorehouseClientError):
        return str(exc)
    if isinstance(exc, OSError) and exc.filename is not None:
        return f"{exc.filename}: {exc.strerror}"
    return None


def _flushed(code: int) -> int:
    """Whoever reads our output may have gone (`… | head`); that is no error to talk about."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or 1
    return code


if __name__ == "__main__":
    main()
