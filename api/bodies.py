"""The body of a request as blocks: raw or multipart, never held as a whole."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flask import Request, g
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]  # ships no type information
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from api import places
from api.pace import TooSlow
from errors import InvalidInput, Problem, ScorehouseError
from settings import Settings

BLOCK_BYTES = 256 * 1024

# From a slow client: so that whoever takes the blocks, and renews a lease with each, does not wait long for one.
_SLOW_BLOCK_BYTES = 16 * 1024
_SLOW_SECONDS = 1.0

_MAX_FIELD_BYTES = 64 * 1024
_MAX_PARTS = 50
_LINE_BREAK = re.compile(rb"[\r\n]")
_LONGEST_AROUND_BOUNDARY = 64  # line ends, dashes and padding; RFC 2046 names no bound for the latter


class Disconnected(ScorehouseError):
    """The client went away in the middle of its body, or sent one that HTTP cannot frame."""

    @classmethod
    def by(cls, cause: Exception) -> Disconnected:
        return cls(f"the body broke off or is malformed ({type(cause).__name__}); send the request again")


class TimedOut(Disconnected):
    """The client sends too slowly, or not at all."""


def longest_pause(settings: Settings) -> float:
    """Seconds that may pass between two blocks of a body that is not too slow."""
    return settings.stall_seconds + _SLOW_BLOCK_BYTES / settings.min_bytes_per_second


def blocks(request: Request) -> Iterator[bytes]:
    """The raw body, however long: whoever reads it bounds it.

    Raises:
        TimedOut, Disconnected: while iterating.
    """
    stream, left = request.environ["wsgi.input"], request.content_length
    size = _SLOW_BLOCK_BYTES
    while True:
        began = time.monotonic()
        try:
            block = stream.read(size)
        except TooSlow as exc:
            raise TimedOut(
                f"{exc.strerror}; nothing of the request is kept, send it again when it can be faster"
            ) from exc
        except (OSError, ParseException) as exc:
            raise Disconnected.by(exc) from exc
        size = BLOCK_BYTES if time.monotonic() - began < _SLOW_SECONDS else _SLOW_BLOCK_BYTES
        if left is not None:
            left -= len(block)
        if not block:
            break
        if "on_block" in g:  # whoever holds a place for this body keeps it
            g.on_block()
        yield block
    places.leave()
    if left:  # gunicorn ends a body that was cut off as it ends a whole one
        raise Disconnected(f"the client disconnected {left:,} bytes before the end of the body")


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file of a multipart body; use its blocks up before you ask for the next part."""

    name: str
    filename: str
    blocks: Iterator[bytes]


class _Decoder(MultipartDecoder):
    """Werkzeug's, which adds a stray CR to a part when the end of its boundary arrives in two pieces (its issue 3285)."""

    def _last_partial_boundary_index(self, data: bytes | bytearray) -> int:
        """From where the data may be the beginning of a boundary line, with its final dashes, padding and line end."""
        window = len(self.boundary) + _LONGEST_AROUND_BOUNDARY
        found = _LINE_BREAK.search(data, max(0, len(data) - window))
        return len(data) if found is None else found.start()


class Multipart:
    """A multipart/form-data body, read once from front to back."""

    def __init__(self, request: Request, *, max_field_bytes: int = _MAX_FIELD_BYTES) -> None:
        boundary = request.mimetype_params.get("boundary")
        if not boundary:
            raise InvalidInput("the Content-Type multipart/form-data lacks its boundary; let your HTTP library set it")
        self.fields: dict[str, str] = {}
        self._decoder = _Decoder(
            boundary.encode("latin-1"), max_form_memory_size=max_field_bytes * 16, max_parts=_MAX_PARTS
        )
        self._source = blocks(request)
        self._ended = False
        self._max_field_bytes = max_field_bytes

    def next_file(self) -> FilePart | None:
        """Collect fields up to the next file, which is returned; None at the end of the body."""
        while not self._ended:
            event = self._event()
            self._ended = isinstance(event, Epilogue)
            if isinstance(event, File):
                return FilePart(event.name, event.filename, self._data())
            if isinstance(event, Field):
                self.fields[event.name] = self._field(event.name)
        return None

    def check_nothing_after(self, known: Mapping[str, str]) -> None:
        """Read on to the end of the form.

        Raises:
            InvalidInput: another file, or fields beyond those that were `known` when the file was taken.
        """
        if self.next_file() is not None:
            raise InvalidInput("the form has more than one file; submit each as a job of its own")
        late = [name for name, value in self.fields.items() if known.get(name) != value]
        if late:
            raise InvalidInput(
                f"the field {late[0]!r} comes after the file, which is taken in as it arrives; "
                "put the fields of the form before the file",
                [Problem("comes after the file", f"#/{name}") for name in late],
            )

    def _field(self, name: str) -> str:
        value = b""
        for block in self._data():
            value += block
            if len(value) > self._max_field_bytes:
                raise InvalidInput(
                    f"the field {name!r} is longer than {self._max_field_bytes:,} bytes; if it is the file, send it with a filename",
                    [Problem("is too long for a field", f"#/{name}")],
                )
        try:
            return value.decode()
        except UnicodeDecodeError as exc:
            raise InvalidInput(f"the field {name!r} is not UTF-8", [Problem("is not UTF-8", f"#/{name}")]) from exc

    def _data(self) -> Iterator[bytes]:
        while True:
            event = self._event()
            if not isinstance(event, Data):
                raise InvalidInput("the multipart body is malformed; let your HTTP library build it")
            if event.data:
                yield bytes(event.data)
            if not event.more_data:
                return

    def _event(self) -> object:
        while True:
            try:
                event = self._decoder.next_event()
            except ValueError as exc:
                raise InvalidInput(f"the multipart body is malformed ({exc}); let your HTTP library build it") from exc
            if not isinstance(event, NeedData):
                return event
            block = next(self._source, None)
            self._decoder.receive_data(block)
