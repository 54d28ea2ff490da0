"""A command imports only its own module: what `cli.main` says of where each is must be so."""

from __future__ import annotations

import subprocess
import sys

import typer

from cli import main


def commands_of(app: typer.Typer) -> dict[str, object]:
    group = typer.main.get_command(app)
    return dict(group.commands)  # type: ignore[attr-defined]  # a group


def test_each_command_is_found_where_the_table_says() -> None:
    assert set(commands_of(main.build())) == set(main.PARTS)
    for word in main.PARTS:
        assert word in commands_of(main.build(word))


def test_a_command_imports_no_other_commands() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import sys; from cli import main; main.build('models'); print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "cli.models" in told
    assert not {"cli.demo", "cli.doctor", "cli.jobs", "rich.console", "settings"} & set(told)


def test_an_unknown_word_is_answered_with_all_commands() -> None:
    assert set(commands_of(main.build("jbos"))) == set(main.PARTS)
