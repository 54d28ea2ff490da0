"""Two machines made of one: network namespaces with a cable between them. It takes root, and `ip` of iproute2.

A process is on the machine that the thread which started it was on; files and unix sockets are everywhere.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from debian_programs import find

_CLONE_NEWNET = 0x40000000
# A network for documentation (RFC 5737): nobody has it.
ADDRESSES = ("192.0.2.1", "192.0.2.2")


def find_ip() -> str:
    """The program `ip`. Who may make no namespaces skips the test, also in CI."""
    program = find("ip", "iproute2")
    if os.geteuid() != 0:
        pytest.skip("only root may make network namespaces")
    probe = f"scorehouse-{os.getpid()}"
    done = subprocess.run([program, "netns", "add", probe], check=False, capture_output=True, text=True, timeout=10)
    if done.returncode != 0:
        pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
    subprocess.run([program, "netns", "delete", probe], check=True, timeout=10)
    return program


class Machine:
    """One of the two; `address` is that of its end of the cable."""

    def __init__(self, ip: str, number: int) -> None:
        self.address = ADDRESSES[number]
        self.name = f"scorehouse-{os.getpid()}-{number}"
        self._ip = ip

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts meanwhile, is on the machine."""
        with Path("/proc/thread-self/ns/net").open() as before, Path(f"/run/netns/{self.name}").open() as namespace:
            _enter(namespace.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def run(self, *words: str) -> None:
        """`ip WORDS…` on the machine."""
        subprocess.run([self._ip, "-netns", self.name, *words], check=True, capture_output=True, timeout=10)

    def make(self) -> None:
        subprocess.run([self._ip, "netns", "add", self.name], check=True, capture_output=True, timeout=10)

    def remove(self) -> None:
        """Its end of the cable goes with it, and so does the other."""
        subprocess.run([self._ip, "netns", "delete", self.name], check=True, capture_output=True, timeout=10)

    def configure(self) -> None:
        self.run("address", "add", f"{self.address}/24", "dev", "cable")
        self.run("link", "set", "cable", "up")
        self.run("link", "set", "lo", "up")

    def pull_the_cable(self) -> None:
        self.run("link", "set", "cable", "down")

    def plug_it_in(self) -> None:
        self.run("link", "set", "cable", "up")


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Removed at the end, whatever happens."""
    program = find_ip()
    first, second = (Machine(program, number) for number in (0, 1))
    with ExitStack() as made:
        for machine in (first, second):
            machine.make()
            made.callback(machine.remove)
        first.run("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second.name)
        first.configure()
        second.configure()
        yield first, second


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns is there from Python 3.12 on
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
