"""`scorehouse demo`: everything once, on real flights, with a word on each step and a check after it."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.background import BackgroundStack, StackFailed, free_port
from errors import ScorehouseError
from scorehouse_client import ScorehouseClientError
from settings import get_settings

LOG_LINES = 30


def register(app: typer.Typer) -> None:
    """Add `demo` to the command line."""
    app.command()(demo)


def demo(
    exit_at_end: Annotated[bool, typer.Option("--exit", help="Stop at the end instead of leaving it running.")] = False,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where all of it is kept. [.scorehouse]")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Children of the bulk worker.")] = 2,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Of the API. [8000, or a free one]")] = None,
) -> None:
    """Start a stack, train and deploy a model on real flights, score a month, and check all that came out."""
    console = Console(highlight=False)
    settings = get_settings()
    stack = BackgroundStack(data_dir or settings.data_dir)
    ports = (port or free_port(settings.api_port), free_port(settings.flower_port))
    try:
        _tour(stack, console, workers, ports, leave_running=not exit_at_end)
    except KeyboardInterrupt:
        console.print("\nstopped by Ctrl-C")
        if exit_at_end:
            raise typer.Exit(1) from None
    except (ScorehouseError, ScorehouseClientError, subprocess.CalledProcessError) as error:
        _explain(error, stack, console)
        raise typer.Exit(1) from error
    finally:
        _stop(stack, console)


def _tour(
    stack: BackgroundStack, console: Console, workers: int, ports: tuple[int, int], *, leave_running: bool
) -> None:
    # Imported here: it needs pandas and scikit-learn, which the other commands do without.
    from cli.tour import Tour  # noqa: PLC0415

    tour = Tour(stack, console)
    tour.run(workers, *ports)
    if leave_running:
        tour.tell_what_next()
        _leave_running(stack, console)


def _leave_running(stack: BackgroundStack, console: Console) -> None:
    stack.check()
    if not stack.ours:
        console.print("The stack ran before this demo, and goes on running.")
        return
    console.print("[bold]It all keeps running until Ctrl-C.[/bold]")
    stack.wait()
    stack.check()


def _explain(error: Exception, stack: BackgroundStack, console: Console) -> None:
    why = str(error)
    if isinstance(error, subprocess.CalledProcessError):
        why = f"`{shlex.join(error.cmd)}` ended with code {error.returncode}; what it said stands above"
    tail = error.log_tail if isinstance(error, StackFailed) else stack.log_tail(LOG_LINES)
    console.print("\nThe demo failed:", style="bold red")
    console.print(why, markup=False)
    if tail:
        console.rule(f"the end of {stack.log_file}", align="left")
        console.print("\n".join(tail), markup=False, soft_wrap=True)
        console.rule()


def _stop(stack: BackgroundStack, console: Console) -> None:
    if stack.ours:
        console.print("Stopping the stack: work in hand is finished first.")
        stack.stop()
