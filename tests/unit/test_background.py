"""A stack in the background is found when it runs, and tells why when it does not."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.background import BackgroundStack, StackFailed, free_port


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_is_not_chosen(taken_port: int) -> None:
    assert free_port(taken_port) != taken_port
    free = free_port(0)
    assert free_port(free) == free


def test_a_stack_file_left_by_a_killed_stack_is_no_stack(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "stack.json").write_text(json.dumps({"pid": ended.pid, "api_url": "http://127.0.0.1:1"}))
    stack = BackgroundStack(tmp_path)
    assert not stack.found
    with pytest.raises(StackFailed, match="no stack runs"):
        stack.check()


def test_a_stack_that_cannot_start_gives_its_reason(tmp_path: Path, taken_port: int) -> None:
    stack = BackgroundStack(tmp_path / "data")
    with pytest.raises(StackFailed, match="ended with code 1") as caught:
        stack.start(workers=1, port=taken_port, flower_port=free_port(0))
    assert str(taken_port) in "\n".join(caught.value.log_tail)
    assert not stack.ours
