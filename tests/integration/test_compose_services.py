"""Each service of docker-compose.yml by its very command and health check, on servers like those that it would find."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())["services"]
RUNNING = ("api", "worker-interactive", "worker-bulk", "beat", "flower")
SCOREHOUSE = str(Path(sys.executable).with_name("scorehouse"))
SECONDS = 90.0


class Service:
    """A service of ours, with a data folder of its own as its container has one."""

    def __init__(self, name: str, folder: Path, shared: dict[str, str]) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.environment = {**os.environ, **shared, "SCOREHOUSE_DATA_DIR": str(self.folder)}
        # Networks of their own keep containers apart; here a free port does.
        self.environment["SCOREHOUSE_API_PORT"] = self.environment["SCOREHOUSE_FLOWER_PORT"] = str(free_port())
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, words: list[str]) -> list[str]:
        return [SCOREHOUSE, *(re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in words)]

    def start(self) -> None:
        with (self.folder / "log").open("wb") as log:
            command = self.command(COMPOSE[self.name]["command"])
            self.process = subprocess.Popen(command, env=self.environment, cwd=self.folder, stdout=log, stderr=log)

    def run(self) -> subprocess.CompletedProcess[str]:
        command = self.command(COMPOSE[self.name]["command"])
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )

    def healthy(self) -> bool:
        kind, *words = COMPOSE[self.name]["healthcheck"]["test"]
        assert (kind, words[0]) == ("CMD", "scorehouse")
        done = subprocess.run(
            self.command(words[1:]), env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode in {0, 1}, done.stderr
        assert done.returncode == 0 or done.stderr.strip(), "it says what is wrong"
        return done.returncode == 0

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(float(COMPOSE[self.name].get("stop_grace_period", "10s").rstrip("s")))


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(1.0)  # each question is a process of its own


@pytest.fixture
def services(tmp_path: Path, servers: Any, empty_database_url: str) -> Iterator[dict[str, Service]]:
    key, password = tmp_path / "key", tmp_path / "password"
    key.write_text("k" * 64)
    password.write_text("hush")
    shared = {
        "SCOREHOUSE_DATABASE_URL": empty_database_url.replace("scorehouse@", "scorehouse_app@"),
        "SCOREHOUSE_BROKER_URL": servers.broker_url,
        "SCOREHOUSE_ARTEFACT_URL": (tmp_path / "artefacts").as_uri(),
    }
    found = {name: Service(name, tmp_path, shared) for name in ("migrate", *RUNNING)}
    found["migrate"].environment["SCOREHOUSE_DATABASE_OWNER_URL"] = empty_database_url
    found["api"].environment["SCOREHOUSE_JWT_KEY_FILE"] = str(key)
    found["flower"].environment["SCOREHOUSE_FLOWER_PASSWORD_FILE"] = str(password)
    yield found
    for service in found.values():
        if service.process is not None and service.process.poll() is None:
            service.process.kill()
            service.process.wait()


def test_services_start_by_their_commands_become_healthy_and_stop(services: dict[str, Service]) -> None:
    def log(name: str) -> Any:
        return (services[name].folder / "log").read_text()[-3000:]

    migrated = services["migrate"].run()
    assert migrated.returncode == 0, migrated.stderr
    assert not any(services[name].healthy() for name in ("api", "worker-bulk", "beat", "flower"))
    for name in RUNNING:
        services[name].start()
    for name in RUNNING:
        wait_for(services[name].healthy, f"{name} is not healthy")
    for name in RUNNING:
        assert services[name].stop() in {0, -signal.SIGTERM}, log(name)
    assert not any(services[name].healthy() for name in ("api", "flower", "worker-bulk"))
