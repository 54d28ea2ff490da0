"""`scorehouse up` as a person starts it: from nothing, twice, after a kill, and stopped."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from embedded.postgres import Postgres
from embedded.stack import MARK

SCOREHOUSE = Path(sys.executable).with_name("scorehouse")
UP_SECONDS = 120.0
DOWN_SECONDS = 90.0


class Up:
    """`scorehouse up` on a data folder, from a working folder whose content could pass for our own packages."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.log = folder / "up.log"
        for name in ("api", "worker"):
            package = folder / "standpoint" / name / "__init__.py"
            package.parent.mkdir(parents=True, exist_ok=True)
            package.write_text("raise ImportError('the wrong package')")
        argv = [str(SCOREHOUSE), "up", "--workers", "1", "--port", "0", "--data-dir", str(self.data_dir)]
        env = {name: value for name, value in os.environ.items() if not name.startswith("SCOREHOUSE_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, *(flags or ("--no-flower",))],
                stdout=log,
                stderr=log,
                env=env,
                cwd=folder / "standpoint",
                start_new_session=True,
            )

    @property
    def running(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.data_dir / "stack.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def wait_until_up(self) -> dict[str, Any]:
        def is_up() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.running.get("pid") == self.process.pid

        wait_for(is_up, UP_SECONDS, self.log)
        return self.running

    def wait_until_restarted(self, name: str, before: int) -> None:
        wait_for(lambda: self.running["pids"][name] != before, 60, self.log)


def wait_for(condition: Callable[[], bool], seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def processes_of(data_dir: Path, pids: dict[str, int]) -> list[psutil.Process]:
    """All that runs for this stack: what carries its mark, and the servers, which carry none of our environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            marked = process.environ().get(MARK) == str(data_dir)
            if process.status() != psutil.STATUS_ZOMBIE and (marked or process.pid in pids.values()):
                found.append(process)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for process in processes_of(tmp_path / "data", {}):
        process.kill()
    Postgres(tmp_path / "data" / "postgres").discard()


@pytest.fixture
def ups() -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for up in started:
        up.process.kill()
        up.process.wait()


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        status: int = answer.status
        return status


def flower(url: str, password: str) -> Callable[[str, str], int]:
    """Ask Flower with a password; what it answers is the status."""
    login = base64.b64encode(f"admin:{password}".encode()).decode()

    def ask(method: str, path: str) -> int:
        request = urllib.request.Request(url + path, method=method, headers={"Authorization": f"Basic {login}"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code
        except urllib.error.URLError:
            return 0  # it is not up yet: nobody waits for it

    return ask


def test_up_from_nothing_then_a_second_one_then_a_clean_stop(folder: Path, ups: list[Up]) -> None:
    up = Up(folder, "--flower-port", "0")
    ups.append(up)
    running = up.wait_until_up()
    assert status_of(running["api_url"] + "/health/live") == 200
    assert set(running["pids"]) == {
        "Postgres",
        "Valkey",
        "api",
        "worker-interactive",
        "worker-bulk",
        "worker-training",
        "beat",
        "flower",
    }
    assert stat.S_IMODE((up.data_dir / "stack.json").stat().st_mode) == 0o600
    password = (up.data_dir / "flower.password").read_text()
    assert not any(password in " ".join(each.cmdline()) for each in processes_of(up.data_dir, running["pids"]))

    asked = flower(running["flower_url"], password)
    wait_for(lambda: asked("GET", "/api/workers") == 200, UP_SECONDS, up.log)
    assert flower(running["flower_url"], "guess")("GET", "/api/workers") == 401
    assert flower(running["flower_url"], "guess")("GET", "/tasks") == 401
    worker = f"bulk@{socket.gethostname()}"
    for act in (f"/api/worker/shutdown/{worker}", "/api/task/send-task/tick.kick", "/api/task/revoke/1"):
        assert asked("POST", act) == 404

    second = Up(folder)
    ups.append(second)
    assert second.process.wait(30) == 1
    said = second.log.read_text()
    assert f"a stack already runs from {up.data_dir}" in said
    assert running["api_url"] in said
    assert f"pid {up.process.pid}" in said
    assert status_of(running["api_url"] + "/health/live") == 200

    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(DOWN_SECONDS) == 0, up.log.read_text()
    assert processes_of(up.data_dir, running["pids"]) == []
    assert not (up.data_dir / "stack.json").exists()
    assert "killed" not in up.log.read_text()


def test_what_is_killed_comes_back_and_a_killed_stack_starts_again(folder: Path, ups: list[Up]) -> None:
    up = Up(folder)
    ups.append(up)
    running = up.wait_until_up()
    for name in ("beat", "Valkey", "Postgres"):
        before = running["pids"][name]
        os.kill(before, signal.SIGKILL)
        up.wait_until_restarted(name, before)
    assert status_of(running["api_url"] + "/health/live") == 200

    last = up.running["pids"]
    up.process.kill()
    up.process.wait()
    again = Up(folder)
    ups.append(again)
    restarted = again.wait_until_up()
    assert status_of(restarted["api_url"] + "/health/live") == 200
    left = {process.pid for process in processes_of(up.data_dir, last)} & set(last.values())
    assert left == set()
    again.process.send_signal(signal.SIGINT)
    assert again.process.wait(DOWN_SECONDS) == 0, again.log.read_text()
    assert processes_of(again.data_dir, restarted["pids"]) == []


def test_a_port_that_is_taken_is_named(folder: Path, ups: list[Up]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = Up(folder, "--port", str(port))
        ups.append(up)
        assert up.process.wait(30) == 1
    said = up.log.read_text()
    assert f"cannot listen on port {port} of 127.0.0.1" in said
    assert "--port" in said
