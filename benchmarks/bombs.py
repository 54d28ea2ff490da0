"""Bodies that are small to send and large to take, or large and never complete; each is to be refused while it arrives."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

_MB = 1_000_000
_BOUNDARY = "b0undary"


@dataclass(frozen=True)
class Bomb:
    """What is sent, made of a header row and a row that a model takes, and the status with which it is to be refused."""

    blocks: Callable[[bytes, bytes], Iterable[bytes]]
    status: int
    kind: str = "text/csv"
    encoding: str = "identity"


def gzipped(blocks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    for block in blocks:
        if packed := packer.compress(block):
            yield packed
    yield packer.flush()


def rows(header: bytes, row: bytes, size: int) -> Iterator[bytes]:
    yield header
    yield from repeated(row * (_MB // len(row)), size)


def repeated(block: bytes, size: int) -> Iterator[bytes]:
    for _ in range(size // len(block)):
        yield block


def members(header: bytes, row: bytes, count: int) -> Iterator[bytes]:
    """A gzip file of many members, each of which unpacks to a megabyte."""
    yield from gzipped([header])
    member = b"".join(gzipped([row * (_MB // len(row))]))
    for _ in range(count):
        yield member


def one_field(header: bytes, size: int) -> Iterator[bytes]:
    yield header + b'"'
    yield from repeated(b"x" * 65_536, size)


def columns(count: int) -> Iterator[bytes]:
    yield ",".join(f"c{number}" for number in range(count)).encode() + b"\n"


def deep(depth: int) -> Iterator[bytes]:
    yield b'{"model": "m", "inputs": {"x": ' + b"[" * depth + b"]" * depth + b"}}"


def parts(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="f{number}"\r\n\r\n1\r\n'.encode()
    yield f"--{_BOUNDARY}--\r\n".encode()


def part_header(size: int) -> Iterator[bytes]:
    yield f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\nX: '.encode()
    yield from repeated(b"x" * 65_536, size)


def form_file(blocks: Iterable[bytes]) -> Iterator[bytes]:
    yield f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="f.csv.gz"\r\n\r\n'.encode()
    yield from blocks
    yield f"\r\n--{_BOUNDARY}--\r\n".encode()


_FORM = f"multipart/form-data; boundary={_BOUNDARY}"
_JSON = "application/json"
BOMBS = {
    "100 kB of gzip for 100 MB": Bomb(lambda header, row: gzipped(rows(header, row, 100 * _MB)), 413),
    "gzip for 10 GB": Bomb(lambda header, row: gzipped(rows(header, row, 10_000 * _MB)), 413),
    "gzip of 10,000 members of 1 MB": Bomb(lambda header, row: members(header, row, 10_000), 413),
    "gzip for 100 MB in a form": Bomb(lambda header, row: form_file(gzipped(rows(header, row, 100 * _MB))), 413, _FORM),
    "JSON in gzip for 100 MB": Bomb(lambda *_: gzipped(repeated(b" " * _MB, 100 * _MB)), 413, _JSON, "gzip"),
    "gzip of 10 GB of zeros, which are one record": Bomb(lambda *_: gzipped(repeated(b"0" * _MB, 10_000 * _MB)), 422),
    "one record of 2 GB": Bomb(lambda *_: repeated(b"x" * 65_536, 2_000 * _MB), 422),
    "one quoted field without an end": Bomb(lambda header, _: one_field(header, 2_000 * _MB), 422),
    "one line of NDJSON of 2 GB": Bomb(lambda *_: repeated(b"[" * 65_536, 2_000 * _MB), 422, "application/x-ndjson"),
    "1,000,000 columns": Bomb(lambda *_: columns(1_000_000), 422),
    "JSON of 2 GB": Bomb(lambda *_: repeated(b" " * 65_536, 2_000 * _MB), 413, _JSON),
    "JSON 8,000,000 arrays deep": Bomb(lambda *_: deep(8_000_000), 422, _JSON),
    "a form of 1,000,000 parts": Bomb(lambda *_: parts(1_000_000), 413, _FORM),
    "a form whose part has a header of 2 GB": Bomb(lambda *_: part_header(2_000 * _MB), 413, _FORM),
}


def send(bomb: Bomb, url: str, token: str, model: str, sample: tuple[bytes, bytes]) -> tuple[int, int]:
    """The status of the answer, and how many bytes of the body were sent by then.

    The client is a rude one: it does not look for an answer before it is cut off or has sent everything. `sample`
    is a header row and a row of what the model takes, each with its line end.
    """
    address = urlsplit(url)
    head = (
        f"POST /v1/jobs?model={model} HTTP/1.1\r\nHost: scorehouse\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {bomb.kind}\r\nContent-Encoding: {bomb.encoding}\r\nTransfer-Encoding: chunked\r\n"
        "Connection: close\r\n\r\n"
    )
    sent = 0
    with socket.create_connection((address.hostname or "", address.port or 80), timeout=120) as client:
        client.sendall(head.encode())
        with suppress(ConnectionError):
            for block in bomb.blocks(*sample):
                client.sendall(f"{len(block):x}\r\n".encode() + block + b"\r\n")
                sent += len(block)
            client.sendall(b"0\r\n\r\n")
        answer = client.makefile("rb").readline()
    return int(answer.split()[1]), sent
