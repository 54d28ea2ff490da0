"""The `scorehouse` command: what its parts are, and how their errors become messages and exit codes.

Exit codes: 0 good, 1 the check or the job failed or something could not be done, 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

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


def build() -> typer.Typer:
    """The command line with all its commands.

    The parts are imported here, and import what they need when they run: `--help` must not wait for pandas.
    """
    from cli import (  # noqa: PLC0415  # as said
        alerts,
        audits,
        demo,
        doctor,
        healthcheck,
        jobs,
        labels,
        models,
        processes,
        quota,
        scoring,
        secrets,
        stacks,
        tokens,
        training,
        trainings,
    )

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

    parts = (scoring, jobs, models, labels, audits, alerts, training, trainings)
    for part in (*parts, stacks, processes, demo, doctor, healthcheck, tokens, quota, secrets):
        part.register(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  # takes time

        typer.echo(version("scorehouse"))
        raise typer.Exit


def _run(arguments: Sequence[str] | None) -> int:
    try:
        build()(args=None if arguments is None else list(arguments), prog_name="scorehouse")
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
