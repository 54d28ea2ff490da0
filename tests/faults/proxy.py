"""A TCP proxy between the stack and one of its servers, whose network can be made as bad as a test wants.

It listens on a port of loopback that the kernel chose, and passes everything on to a unix socket. What it can do to the
links, to all of them or to those whose client introduced itself by some text (Postgres: its `application_name`):

    latency       each round trip takes longer; nothing is lost, and the bandwidth stays
    silence()     the peer's host is there and confirms what it gets, and nobody answers: a server or a pooler that hangs
    black_hole()  nothing gets through at all, not even the kernel's confirmations: half-open, as after a cable was pulled
    cut()         connections that are there are reset
    refuse()      the server's links are reset, and new ones are not accepted
    heal()        new links work again; those that were silent stay so for ever, unless they are to `resume`
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"
BLOCK = 65_536
BLOCKS_UNDER_WAY = 256  # of a direction: what latency does not take from the bandwidth
COMMAND_SECONDS = 10.0

# Linux: a filter of one instruction, "take 0 bytes of it", in the order of struct sock_filter and struct sock_fprog.
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
_DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
_FILTER = struct.pack("HL", 1, ctypes.addressof(_DROP_ALL))
_RESET_WHEN_CLOSED = struct.pack("ii", 1, 0)


class Proxy:
    """Use it as a context manager. Commands may come from any thread, and have taken effect when they return.

    Args:
        upstream: tells the unix socket of the server, which may be another one after a restart.
    """

    def __init__(self, upstream: Callable[[], Path]) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._links: set[Link] = set()
        self._spoilt: tuple[bytes, str] | None = None  # whom it concerns, and how
        self.port = 0
        self.latency = 0.0  # seconds of a round trip

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(COMMAND_SECONDS)
        self._loop.close()

    def links(self, introduced_by: bytes = b"") -> int:
        """How many links there are that pass something on."""
        return self._do(self._count(introduced_by))

    def silence(self, introduced_by: bytes = b"") -> None:
        self._do(self._spoil(introduced_by, "silent"))

    def black_hole(self, introduced_by: bytes = b"") -> None:
        self._do(self._spoil(introduced_by, "black hole"))

    def cut(self, introduced_by: bytes = b"") -> int:
        """Returns how many there were."""
        return self._do(self._cut(introduced_by))

    def refuse(self) -> None:
        self._do(self._refuse())

    def heal(self, *, resume: bool = False) -> None:
        self.latency = 0.0
        self._do(self._heal(resume))

    # in the thread of the loop

    def _do(self, command: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(command, self._loop).result(COMMAND_SECONDS)

    async def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((HOST, self.port))
        listener.listen(512)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = self._loop.create_task(self._accept(listener))

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(self, client)
            self._links.add(link)
            link.task = self._loop.create_task(self._serve(link))

    async def _serve(self, link: Link) -> None:
        reset = True
        try:
            await link.run(self._upstream())
            reset = False
        except OSError:
            pass  # the server is not there, or was not there any more
        finally:
            link.close(reset=reset)
            self._links.discard(link)

    async def _count(self, introduced_by: bytes) -> int:
        return sum(not link.spoilt for link in self._concerned(introduced_by))

    async def _spoil(self, introduced_by: bytes, how: str) -> None:
        self._spoilt = (introduced_by, how)
        for link in self._concerned(introduced_by):
            link.spoil(how)
        if how == "black hole" and not introduced_by and self._listener is not None:
            drop(self._listener)  # not even a SYN is answered

    def spoil_if_concerned(self, link: Link) -> None:
        """A link that has just introduced itself shares the fate of the others."""
        if self._spoilt is not None and self._spoilt[0] in link.introduction:
            link.spoil(self._spoilt[1])

    async def _cut(self, introduced_by: bytes) -> int:
        concerned = self._concerned(introduced_by)
        for link in concerned:
            link.end()
        return len(concerned)

    async def _refuse(self) -> None:
        await self._stop_listening()
        await self._cut(b"")

    async def _heal(self, resume: bool) -> None:
        self._spoilt = None
        if resume:
            for link in self._links:
                link.resume()
        if self._listener is None:
            await self._listen()
        else:
            undrop(self._listener)

    async def _stop_listening(self) -> None:
        if self._accepting is not None and self._listener is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._listener.close()
            self._listener = None

    async def _close(self) -> None:
        await self._stop_listening()
        tasks = [link.task for link in self._links if link.task is not None]
        await self._cut(b"")
        await asyncio.gather(*tasks, return_exceptions=True)

    def _concerned(self, introduced_by: bytes) -> list[Link]:
        return [link for link in self._links if introduced_by in link.introduction]


class Link:
    """A client's connection and ours to the server for it."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.task: asyncio.Task[None] | None = None
        self.introduction = b""  # the first that the client said
        self.spoilt = ""
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self._open = asyncio.Event()
        self._open.set()

    async def run(self, upstream: Path) -> None:
        """Pass on what comes until one of the two ends."""
        loop = asyncio.get_running_loop()
        self._proxy.spoil_if_concerned(self)  # of those that concern all
        self._server = socket.socket(socket.AF_UNIX)
        self._server.setblocking(False)
        await loop.sock_connect(self._server, str(upstream))
        self.introduction = await loop.sock_recv(self._client, BLOCK)
        self._proxy.spoil_if_concerned(self)
        ways = [
            loop.create_task(self._pass_on(self._client, self._server, self.introduction)),
            loop.create_task(self._pass_on(self._server, self._client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            await self._open.wait()  # the news that a peer is gone does not get through either
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(self, source: socket.socket, target: socket.socket, first: bytes = b"") -> None:
        """A delay line: blocks are under way at the same time, each for half of a round trip."""
        loop = asyncio.get_running_loop()
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(BLOCKS_UNDER_WAY)

        async def read() -> None:
            block = first or await _received(source)
            while block:
                await line.put((loop.time() + self._proxy.latency / 2, block))
                block = await _received(source)
            await line.put((0.0, b""))

        reading = loop.create_task(read())
        try:
            while True:
                due, block = await line.get()
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                await self._open.wait()
                if not block:
                    return
                await loop.sock_sendall(target, block)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def spoil(self, how: str) -> None:
        self.spoilt = how
        self._open.clear()
        if how == "black hole":
            drop(self._client)

    def resume(self) -> None:
        if self.spoilt:
            self.spoilt = ""
            undrop(self._client)
            self._open.set()

    def end(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def close(self, *, reset: bool) -> None:
        """Close both sides, the client's with a RST or in order."""
        if reset:
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_WHEN_CLOSED)
        self._client.close()
        if self._server is not None:
            self._server.close()


async def _received(source: socket.socket) -> bytes:
    """The next block; empty when the peer has closed or reset."""
    try:
        return await asyncio.get_running_loop().sock_recv(source, BLOCK)
    except OSError:
        return b""


def drop(end: socket.socket) -> None:
    """Let the kernel drop every packet that comes for a socket, before TCP sees it; needs no privilege."""
    end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, _FILTER)


def undrop(end: socket.socket) -> None:
    with suppress(OSError):  # there was none
        end.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
