"""The supervisor with small children of its own: restarts, giving up, the order of the drain, and no orphans."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from embedded import EmbeddedError
from embedded.console import Console
from embedded.program import Program
from embedded.supervisor import Supervisor

WAIT = 30.0
CALM = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\nwhile True: signal.pause()"


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(output: io.StringIO) -> Console:
    return Console(output)


def program(name: str, code: str, console: Console, *arguments: str, stop_seconds: float = 10.0) -> Program:
    argv = [sys.executable, "-S", "-c", textwrap.dedent(code), *arguments]
    return Program(name, argv, {}, console, stop_seconds=stop_seconds)


def test_a_child_that_dies_is_started_again(console: Console, output: io.StringIO, tmp_path: Path) -> None:
    dies_once = """
        import pathlib, signal, sys
        mark = pathlib.Path(sys.argv[1])
        if not mark.exists():
            mark.touch()
            sys.exit(3)
        print("alive again", flush=True)
        signal.pause()
    """
    with Supervisor(console, backoff=0.05) as supervisor:
        supervisor.start(program("worker", dies_once, console, str(tmp_path / "mark")), 0)
        supervisor.wait_until(lambda: "alive again" in output.getvalue(), WAIT, "it did not come back")
    assert "worker ended with exit code 3; starting it again in 0.05 s" in output.getvalue()


def test_each_restart_waits_twice_as_long_and_the_sixth_death_ends_it(console: Console, output: io.StringIO) -> None:
    with Supervisor(console, backoff=0.01) as supervisor:
        calm = program("calm", CALM, console)
        supervisor.start(calm, 0)
        supervisor.start(program("worker", "import sys; print('no such table: job'); sys.exit(7)", console), 0)
        with pytest.raises(EmbeddedError) as gave_up:
            supervisor.wait_until(lambda: False, WAIT, "it went on")
    assert "worker ended 6 times within 60 s, the last time it ended with exit code 7" in str(gave_up.value)
    assert "no such table: job" in str(gave_up.value)
    waits = re.findall(r"starting it again in ([\d.]+) s", output.getvalue())
    assert waits == ["0.01", "0.02", "0.04", "0.08", "0.16"]
    assert calm.poll() is not None


def test_a_dead_child_takes_its_own_children_along(console: Console, tmp_path: Path) -> None:
    leaves_a_child = """
        import os, pathlib, subprocess, sys
        child = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
        with open(sys.argv[1], "a") as pids:
            pids.write(f"{child.pid}\\n")
        os._exit(1)
    """
    pids = tmp_path / "pids"
    with Supervisor(console, backoff=0.05) as supervisor:
        supervisor.start(program("worker", leaves_a_child, console, str(pids)), 0)
        supervisor.wait_until(lambda: pids.exists() and pids.read_text().count("\n") >= 2, WAIT, "it did not come back")
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_stages_stop_one_after_the_other(console: Console, output: io.StringIO) -> None:
    slow_to_stop = """
        import signal, sys, time
        def leave(number, frame):
            time.sleep(float(sys.argv[1]))
            print("left", flush=True)
            sys.exit()
        signal.signal(signal.SIGTERM, leave)
        print("ready", flush=True)
        while True:
            signal.pause()
    """
    with Supervisor(console) as supervisor:
        for name, stage, seconds in (("database", 2, "0"), ("beat", 0, "0.3"), ("api", 1, "0.2"), ("worker", 1, "0")):
            supervisor.start(program(name, slow_to_stop, console, seconds), stage)
        supervisor.wait_until(lambda: output.getvalue().count("ready") == 4, WAIT, "not all came up")
    left = re.findall(r"^(\w+) +\| left$", output.getvalue(), re.MULTILINE)
    assert left == ["beat", "worker", "api", "database"]


def test_a_child_that_does_not_stop_in_time_is_killed(console: Console, output: io.StringIO) -> None:
    stubborn = program("worker", STUBBORN, console, stop_seconds=0.2)
    with Supervisor(console) as supervisor:
        supervisor.start(stubborn, 0)
        supervisor.wait_until(lambda: "ready" in output.getvalue(), WAIT, "it did not come up")
    assert stubborn.poll() == -signal.SIGKILL
    assert "worker did not stop in time and is killed" in output.getvalue()


def test_lines_of_several_children_never_mix(console: Console, output: io.StringIO) -> None:
    chatty = """
        import sys
        for number in range(300):
            for part in (sys.argv[1] * 40, " ", str(number)):
                sys.stdout.write(part)
                sys.stdout.flush()
            sys.stdout.write("\\n")
        sys.stdout.write("unfinished " + sys.argv[1])
    """
    children = [program(letter, chatty, console, letter) for letter in "abc"]
    for child in children:
        child.start()
    for child in children:
        while child.poll() is None:
            pass
        child.stop()
    lines = output.getvalue().splitlines()
    for letter in "abc":
        own = [line for line in lines if line.startswith(f"{letter} ")]
        said = [line.split("| ", 1)[1] for line in own]
        assert said == [f"{letter * 40} {number}" for number in range(300)] + [f"unfinished {letter}"]
    assert len(lines) == 3 * 301
    assert "\x1b" not in output.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    Console(terminal).log("api", "listening")
    assert terminal.getvalue().startswith("\x1b[")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    Console(plain).log("api", "listening")
    assert plain.getvalue() == "api                | listening\n"


# A supervisor in a process of its own, to be signalled. It prints its children's pids once they all said "ready".
STACK = f"""
    import io, sys
    from embedded.console import Console
    from embedded.program import Program
    from embedded.supervisor import StopRequested, Supervisor

    heard = io.StringIO()
    console = Console(heard)
    def child(name, code):
        return Program(name, [sys.executable, "-S", "-c", code], {{}}, console, stop_seconds=60)
    try:
        with Supervisor(Console()) as supervisor:
            supervisor.start(child("calm", {CALM!r}), 0)
            supervisor.start(child(sys.argv[1], {STUBBORN!r} if sys.argv[1] == "stubborn" else {CALM!r}), 1)
            supervisor.wait_until(lambda: heard.getvalue().count("ready") == 2, 30, "not all came up")
            print(*supervisor.pids.values(), flush=True)
            supervisor.run() if sys.argv[2] == "run" else supervisor.wait_until(lambda: False, 60, "never")
    except StopRequested:
        sys.exit(5 if sys.argv[2] == "start" else 0)  # a signal that comes just before run() is a stop like any other
"""


class Stack:
    def __init__(self, second_child: str, phase: str) -> None:
        argv = [sys.executable, "-c", textwrap.dedent(STACK), second_child, phase]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stdout is not None
        self.output = self.process.stdout
        self.pids = [int(pid) for pid in self.output.readline().split()]
        self.children = [psutil.Process(pid) for pid in self.pids]

    def wait_for(self, text: str) -> None:
        for line in self.output:
            if text in line:
                return
        raise AssertionError(f"the stack ended without saying {text!r}")


@pytest.fixture
def stacks() -> Iterator[list[Stack]]:
    started: list[Stack] = []
    yield started
    for stack in started:
        for process in [stack.process, *stack.children]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        stack.process.wait()
        stack.output.close()


def gone(pid: int) -> bool:
    """Whether the process has ended, or does so within the time that a signal takes to arrive."""
    try:
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            process.wait(10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def test_a_killed_supervisor_leaves_no_orphans(stacks: list[Stack]) -> None:
    stacks.append(Stack("calm-too", "run"))
    assert len(stacks[0].pids) == 2
    stacks[0].process.kill()
    assert all(gone(pid) for pid in stacks[0].pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_drains_and_ends_well(stacks: list[Stack], number: signal.Signals) -> None:
    stacks.append(Stack("calm-too", "run"))
    stacks[0].process.send_signal(number)
    assert stacks[0].process.wait(WAIT) == 0
    assert all(gone(pid) for pid in stacks[0].pids)


def test_a_stop_signal_while_starting_stops_what_was_started(stacks: list[Stack]) -> None:
    stacks.append(Stack("calm-too", "start"))
    stacks[0].process.send_signal(signal.SIGTERM)
    assert stacks[0].process.wait(WAIT) == 5
    assert all(gone(pid) for pid in stacks[0].pids)


def test_a_second_stop_signal_hurries(stacks: list[Stack]) -> None:
    stacks.append(Stack("stubborn", "run"))
    stacks[0].process.send_signal(signal.SIGINT)
    stacks[0].wait_for("stopping stubborn")
    stacks[0].process.send_signal(signal.SIGINT)
    assert stacks[0].process.wait(10) == 0  # instead of the 60 s that the child was given
    assert all(gone(pid) for pid in stacks[0].pids)


def test_a_program_that_cannot_be_run_says_so(console: Console, output: io.StringIO) -> None:
    child = Program("api", ["/nowhere/gunicorn"], {}, console)
    child.start()
    while child.poll() is None:
        pass
    child.stop()
    assert child.poll() == 1
    assert child.log_tail() == ["cannot run /nowhere/gunicorn: No such file or directory"]
