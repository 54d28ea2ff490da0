"""RabbitMQ of this machine (Debian's package `rabbitmq-server`), as a child of the tests, on loopback only."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from debian_programs import find

from cli.background import free_port
from embedded.console import Console
from embedded.program import Program

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
USER, VHOST = "scorehouse", "scores"


def find_rabbitmq() -> Path:
    """The folder of its programs; those in PATH become another user."""
    find("epmd", "erlang-base")
    return Path(find("rabbitmq-server", "rabbitmq-server", folder="/usr/lib/rabbitmq/bin")).parent


class RabbitMQ:
    """Use it as a context manager, in the main thread. It may be stopped or killed, and started again, with its data or without.

    Args:
        folder: for all that it writes.
        tls: certificate and key of a second listener, for `amqps`.
    """

    def __init__(self, folder: Path, tls: tuple[Path, Path] | None = None) -> None:
        self._programs = find_rabbitmq()
        self.folder = folder
        self.port, self.tls_port = free_port(0), free_port(0)
        self._password = secrets.token_urlsafe()
        self._ports = {"ERL_EPMD_PORT": str(free_port(0)), "RABBITMQ_DIST_PORT": str(free_port(0))}
        folder.mkdir(parents=True)
        self._log = (folder / "log").open("a")
        self._console = Console(self._log)
        (folder / "plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text("\n".join(self._configuration(tls)))
        # Erlang's nodes find each other through `epmd`; one of our own ends with us.
        self._epmd = Program("epmd", ["epmd", "-address", HOST], self.environment, self._console)
        self._server = Program(
            "rabbitmq", [str(self._programs / "rabbitmq-server")], self.environment, self._console, cwd=folder
        )

    def url(self, host: str = HOST) -> str:
        return f"amqp://{USER}:{self._password}@{host}:{self.port}/{VHOST}"

    def tls_url(self, host: str) -> str:
        return f"amqps://{USER}:{self._password}@{host}:{self.tls_port}/{VHOST}"

    @property
    def environment(self) -> dict[str, str]:
        """Of the server and of `rabbitmqctl`."""
        return {
            **self._ports,
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.folder),  # the cookie
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_NODENAME": f"scorehouse-{self.port}@localhost",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def start(self) -> None:
        """Returns when it takes connections."""
        self._server.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            assert self._server.poll() is None, self._server.log_tail()
            assert time.monotonic() < deadline, self._server.log_tail()
            time.sleep(0.05)

    def stop(self) -> None:
        """In order: it tells its clients, and keeps what it was given to keep."""
        self._server.send(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self._server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        self._server.stop()
        while self._listens():  # the kernel still takes it down
            time.sleep(0.05)

    def ctl(self, *words: str) -> None:
        """Run `rabbitmqctl WORDS…`."""
        argv = [str(self._programs / "rabbitmqctl"), *words]
        subprocess.run(argv, env=self.environment, check=True, capture_output=True, timeout=START_SECONDS)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """In its tracks, as if it hung: the machine that it is on still confirms what comes."""
        processes = psutil.Process(self._server.pid).children(recursive=True)
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def forget(self) -> None:
        """Lose all that it knew; it must not run."""
        shutil.rmtree(self.folder / "mnesia")

    def __enter__(self) -> Self:
        self._epmd.start()
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self._epmd.stop()
        self._log.close()

    def _configuration(self, tls: tuple[Path, Path] | None) -> list[str]:
        lines = [
            f"listeners.tcp.1 = {HOST}:{self.port}",
            f"default_user = {USER}",
            f"default_pass = {self._password}",
            f"default_vhost = {VHOST}",
        ]
        if tls is not None:
            certificate, key = tls
            lines += [
                f"listeners.ssl.1 = {HOST}:{self.tls_port}",
                f"ssl_options.cacertfile = {certificate}",
                f"ssl_options.certfile = {certificate}",
                f"ssl_options.keyfile = {key}",
                "ssl_options.verify = verify_none",
            ]
        return [*lines, ""]

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=5):
            return True
        return False
