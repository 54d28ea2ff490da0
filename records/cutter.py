"""Cuts a stream of text into pieces at the ends of records: what arrives as an upload becomes the chunks of a job.

    cutter = CsvCutter(",", limits)
    for block in blocks:
        for piece in cutter.feed(block):    # cutter.columns is known as soon as the header has arrived
            …
    for piece in cutter.finish():
        …

Memory holds one piece and one block, whatever the size of the file. The bytes of the records are passed on untouched; the
header, a byte order mark and blank lines before a piece are left out. Pieces grow from 128 KiB to `chunk_bytes`, so that
a small file spreads over the workers and a large one costs few transactions; of a slow model they have no more rows than it
scores in time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import numpy as np

from errors import InvalidInput, Problem
from records.boundaries import Boundaries, Offsets, csv_boundaries, ndjson_boundaries
from records.columns import header_columns, record_columns
from records.encoding import BOM, Source
from records.piece import Format, Limits, Piece

__all__ = ["Cutter", "CsvCutter", "NdjsonCutter", "Limits", "Piece", "cutter_of", "pieces"]


def cutter_of(format: Format, delimiter: str = ",", limits: Limits | None = None) -> Cutter:
    """The cutter of a format; the delimiter is that of CSV.

    Raises:
        InvalidInput: the delimiter is not a single ASCII character, or is one that CSV needs itself.
    """
    return NdjsonCutter(limits) if format == "ndjson" else CsvCutter(delimiter, limits)


def pieces(cutter: Cutter, blocks: Iterable[bytes]) -> Iterator[Piece]:
    """All pieces of a file that arrives in blocks of any size."""
    for block in blocks:
        yield from cutter.feed(block)
    yield from cutter.finish()


class Cutter(ABC):
    """What both formats share: the buffer, the sizes of pieces, the numbers of rows and lines."""

    kind: str  # "CSV" or "NDJSON", for messages

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits = limits or Limits()
        self.columns: list[str] | None = None
        self._next_bytes = min(limits.first_piece_bytes, limits.chunk_bytes)
        self._goal = self._next_bytes  # size of the buffer at which to cut
        self._next_try = 0  # size of the buffer at which to look for the header again
        self._parts: list[bytes] = []  # the buffer
        self._size = 0  # of the buffer
        self._source = Source(self.kind)
        self._offset = 0  # of the buffer in the file
        self._line = 1  # physical, where the buffer begins
        self._row = 1

    def feed(self, block: bytes) -> Iterator[Piece]:
        """Take the next bytes of the file and give the pieces that they complete. A generator: use it up.

        Raises:
            InvalidInput: the file cannot be accepted; names the line or the column, and what to do.
        """
        place = 0
        while place < len(block):
            step = block[place : place + self._goal - self._size]
            place += len(step)
            self._append(step)
            if self.columns is None and b"\n" in step and self._size >= self._next_try:
                self._begin(final=False)
            while self._size >= self._goal:
                yield from self._cut(final=False)

    def finish(self) -> Iterator[Piece]:
        """Give what is left at the end of the file. A generator: use it up.

        Raises:
            InvalidInput: like `feed`; also for an empty file and for a quote that is never closed.
        """
        if self.columns is None:
            self._begin(final=True)
        if self._size:
            yield from self._cut(final=True)

    @abstractmethod
    def _boundaries(self, data: bytes, *, final: bool) -> Boundaries: ...

    @abstractmethod
    def _take_columns(self, data: bytes, start: int, end: int) -> None:
        """Set `columns` from the first record, and consume it when it is a header."""

    @abstractmethod
    def _empty(self) -> InvalidInput: ...

    def _append(self, step: bytes) -> None:
        self._source.see(step)
        place = step.find(b"\0")
        if place >= 0:
            line = self._line + sum(part.count(b"\n") for part in self._parts) + step.count(b"\n", 0, place)
            self._source.refuse_nul(line=line, offset=self._offset + self._size + place)
        self._parts.append(step)
        self._size += len(step)

    def _joined(self) -> bytes:
        if len(self._parts) != 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def _begin(self, *, final: bool) -> None:
        """Read the names of the columns if the record that holds them is complete."""
        if self._offset == 0 and self._joined().startswith(BOM):
            self._consume(len(BOM))
        self._source.refuse_other_kinds()
        data = self._joined()
        found = self._boundaries(data, final=final)
        self._check_ends(data, found, final=final)
        if found.starts.size:
            self._check_text(data[: found.ends[0]])
            self._check_length(data, found.starts[:1], found.ends[:1])
            self._take_columns(data, int(found.starts[0]), int(found.ends[0]))
        elif final:
            raise self._empty()
        else:
            self._next_try = self._size + self._size // 8  # a header over many tiny blocks must not cost a square

    def _cut(self, *, final: bool) -> Iterator[Piece]:
        """The records in the buffer as a piece; what remains is an unfinished record."""
        if self.columns is None:
            self._begin(final=final)
        data = self._joined()
        found = self._boundaries(data, final=final)
        self._check_ends(data, found, final=final)
        self._check_length(data, found.starts, found.ends)
        pieces = list(self._pieces(data, found))
        self._consume(found.complete)
        if pieces:
            self._next_bytes = self._goal = min(2 * self._next_bytes, self.limits.chunk_bytes)
            yield from pieces
        self._check_unfinished(in_quotes=found.in_quotes)
        if self._size >= self._goal:
            self._goal = min(2 * self._size, self.limits.max_record_bytes + 1)

    def _pieces(self, data: bytes, found: Boundaries) -> Iterator[Piece]:
        """The complete records: one piece, or more where so many rows would take too long."""
        rows = int(found.starts.size)
        step = min(rows, self.limits.chunk_rows or rows)
        line, counted = self._line, 0
        for first in range(0, rows, step or 1):
            start = int(found.starts[first])
            end = int(found.starts[first + step]) if first + step < rows else found.complete
            line, counted = line + data.count(b"\n", counted, start), start
            body = data[start:end]
            self._source.check_utf8(body, line=line, offset=self._offset + start)
            piece = Piece(self._row, min(step, rows - first), line, body)
            self._row += piece.rows
            yield piece

    def _consume(self, size: int) -> None:
        data = self._joined()
        self._line += data.count(b"\n", 0, size)
        self._offset += size
        self._parts = [data[size:]]
        self._size -= size

    def _check_ends(self, data: bytes, found: Boundaries, *, final: bool) -> None:
        if found.bare_cr is not None:
            self._check_text(data[: found.bare_cr])
            line = self._line_of(data, found.bare_cr)
            raise _refusal(
                line,
                f"Line {line} holds a carriage return (CR) without a line feed outside quotes, at byte offset "
                f"{self._offset + found.bare_cr:,}; lines must end with LF or CRLF. If CR alone ends the lines, as on "
                "old Macs, convert it with `tr '\\r' '\\n' < old.csv > new.csv`; else quote the cell",
            )
        if final and found.in_quotes:
            self._check_text(data)
            line = self._line_of(data, found.complete)
            raise _refusal(
                line,
                f"The record that begins on line {line} does not end: a quote opens a cell in it and is not closed "
                "before the end of the file. Close the quote; a quote inside a quoted cell is written twice",
            )

    def _check_length(self, data: bytes, starts: Offsets, ends: Offsets) -> None:
        long = np.flatnonzero(ends - starts > self.limits.max_record_bytes)
        if long.size:
            start, end = int(starts[long[0]]), int(ends[long[0]])
            raise self._too_long(self._line_of(data, start), quoted=b"\n" in data[start : end - 1])

    def _check_unfinished(self, *, in_quotes: bool) -> None:
        """What is left of the buffer after a cut is one unfinished record."""
        if self._size > self.limits.max_record_bytes:
            data = self._joined()
            self._check_text(data, final=False)
            raise self._too_long(self._line, quoted=in_quotes)

    def _too_long(self, line: int, *, quoted: bool) -> InvalidInput:
        hint = (
            "It runs on inside quotes: a quote was probably not closed"
            if quoted
            else "Look for missing line ends, or ask the operator to raise SCOREHOUSE_MAX_RECORD_BYTES"
        )
        limit = self.limits.max_record_bytes
        return _refusal(
            line, f"The record that begins on line {line} is longer than the {limit:,} bytes allowed. {hint}"
        )

    def _check_text(self, data: bytes, *, final: bool = True) -> None:
        self._source.check_utf8(data, line=self._line, offset=self._offset, final=final)

    def _line_of(self, data: bytes, place: int) -> int:
        return self._line + data.count(b"\n", 0, place)


class CsvCutter(Cutter):
    """Cuts CSV with a header row; records end where Python's csv module ends them."""

    kind = "CSV"

    def __init__(self, delimiter: str = ",", limits: Limits | None = None) -> None:
        super().__init__(limits)
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
            detail = f"The delimiter {delimiter!r} is not usable; give one ASCII character such as , ; | or a tab (%09)"
            raise InvalidInput(detail, [Problem(detail, "#/query/delimiter")])
        self.delimiter = delimiter

    def _boundaries(self, data: bytes, *, final: bool) -> Boundaries:
        return csv_boundaries(data, self.delimiter, final=final)

    def _take_columns(self, data: bytes, start: int, end: int) -> None:
        self.columns = header_columns(
            data[start:end], self.delimiter, line=self._line_of(data, start), max_columns=self.limits.max_columns
        )
        self._consume(end)

    def _empty(self) -> InvalidInput:
        return _refusal(
            1, "The file is empty; its first line must name the columns, for instance `customer,age,income`"
        )


class NdjsonCutter(Cutter):
    """Cuts text with one JSON object per line; only the first object is read, for its keys."""

    kind = "NDJSON"

    def _boundaries(self, data: bytes, *, final: bool) -> Boundaries:
        return ndjson_boundaries(data, final=final)

    def _take_columns(self, data: bytes, start: int, end: int) -> None:
        self.columns = record_columns(
            data[start:end], line=self._line_of(data, start), max_columns=self.limits.max_columns
        )

    def _empty(self) -> InvalidInput:
        return _refusal(1, 'The file is empty; expected one JSON object per line, such as {"age": 42}')


def _refusal(line: int, detail: str) -> InvalidInput:
    return InvalidInput(detail, [Problem(detail, f"#/line/{line}")])
