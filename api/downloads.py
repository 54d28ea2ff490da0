"""Downloads of results and row errors: streamed chunk by chunk in input order, memory bounded by one chunk."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np
from sqlalchemy import Connection, Engine, Row

from api.rendering import label
from db import jobs, models, predictions
from db.engine import read, transaction
from db.jobs import ChunkSpan
from db.predictions import Range
from errors import Gone, InvalidInput, Problem
from records.boundaries import fields
from records.payload import unpack
from records.split import raw_texts
from registry.signature import Output, Signature

_ERRORS_PER_PAGE = 2_000
_MAX_CHUNK_BYTES = 1 << 30

# A cell that begins like this runs as a formula in a spreadsheet.
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r")
# The first byte of such a cell in a line of CSV, where it may be quoted.
_FIRST_BYTES = np.frombuffer(b'=+-@\t\r"', np.uint8)
_LINE_FEED = 10
_NUMBER = re.compile(r"[ \t]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ \t]*\Z", re.ASCII)  # padded as in cells

# A column that is passed through may hold a cell as long as a record; the csv module reads 131,072 characters by default.
csv.field_size_limit(_MAX_CHUNK_BYTES)

# Chunks of a download that are fetched while one is on its way to the client.
_FETCHED_AHEAD = 2

Fetched = TypeVar("Fetched")
Spans = Sequence[ChunkSpan]
Kind = Literal["prediction", "probability", "version"]


@dataclass(frozen=True)
class Table:
    """How the results of one job look.

    `leading` are the columns before the results: the key (or the row number), or the caller's own. `names`, `kinds` and
    `expressions` (SQL) describe the results; `key` is the SQL of the key.
    """

    leading: list[str]
    names: list[str]
    kinds: list[Kind]
    expressions: list[str]
    key: str
    output: Output
    numbered: bool

    @property
    def header(self) -> list[str]:
        return [*self.leading, *self.names]


def table_of(engine: Engine, row: Row[Any], *, include_inputs: bool = False) -> Table:
    """The columns of a download: key (or row number) or inputs, then prediction, probabilities, version."""
    stored = read(engine, lambda connection: models.signature_of(connection, row.version_id))
    output = Signature.model_validate(stored).output
    assert output is not None, "only a registered version, whose output was examined, can score"
    columns: list[tuple[str, Kind, str]] = [("prediction", "prediction", "prediction")]
    if output.has_probability and output.classes is not None:
        if len(output.classes) == 2:
            columns.append(("probability", "probability", "probability"))
        else:
            columns += [
                (f"probability_{_text(name)}", "probability", f"probability_{place}")
                for place, name in enumerate(output.classes, 1)
            ]
    columns.append(("model_version", "version", f"'{row.model_version}'"))
    leading = list(row.columns) if include_inputs else [row.key_column or "row"]
    return Table(
        leading=leading,
        names=[name if name not in leading else f"scorehouse_{name}" for name, _, _ in columns],
        kinds=[kind for _, kind, _ in columns],
        expressions=[expression for _, _, expression in columns],
        key="record_key" if row.key_column else "row",
        output=output,
        numbered=row.key_column is None and not include_inputs,
    )


def finished(engine: Engine, row: Row[Any], after_row: int) -> tuple[Spans, int]:
    """The chunks whose results can be shown, and the row through which they reach.

    They end before the first chunk that is not done yet; of a job that is over they are all that were done.

    Args:
        after_row: leave out the rows up to this one, a number that an earlier call gave, or 0.

    Raises:
        InvalidInput: `after_row` is in the middle of a chunk.
        Gone: retention took the job since `row` was read.
    """
    with transaction(engine) as connection:
        spans = jobs.spans(connection, row.id)
    if row.chunks_total and not spans:
        raise _gone(row)
    open_from = next((span.first_row for span in spans if span.state in {"queued", "running"}), math.inf)
    ready = [span for span in spans if span.state == "done" and span.first_row < open_from]
    rest = [span for span in ready if span.last_row > after_row]
    if rest and rest[0].first_row <= after_row:
        detail = "must be 0 or what the header Results-Through-Row of an earlier answer said"
        raise InvalidInput(f"after_row {detail}", [Problem(detail, "#/query/after_row")])
    return rest, max([after_row, *(span.last_row for span in ready)])


def results_csv(engine: Engine, row: Row[Any], spans: Spans, *, header: bool, keep_formulas: bool) -> Iterator[bytes]:
    """Key, prediction, probabilities, version."""
    table = table_of(engine, row)
    risky = any(neutral(_text(name)) != _text(name) for name in table.output.classes or ())
    for block in itertools.chain([_csv_line(table.header)] if header else [], _exports(engine, row, spans, table)):
        yield _neutral_csv(block, ",") if not keep_formulas and (risky or _keys_may_hold_formula(block)) else block


def results_with_inputs_csv(
    engine: Engine, row: Row[Any], spans: Spans, *, header: bool, keep_formulas: bool
) -> Iterator[bytes]:
    """The caller's columns, their text untouched, then prediction, probabilities, version."""
    table = table_of(engine, row, include_inputs=True)
    for block in itertools.chain(
        [_csv_line(table.header, row.delimiter)] if header else [], _lines_with_inputs(engine, row, spans, table)
    ):
        yield block if keep_formulas else _neutral_csv(block, row.delimiter)


def results_ndjson(engine: Engine, row: Row[Any], spans: Spans, *, include_inputs: bool) -> Iterator[bytes]:
    """One JSON object per row, typed: numbers are numbers. The text of a record that came as JSON is untouched."""
    table = table_of(engine, row, include_inputs=include_inputs)
    if not include_inputs:
        for block in _exports(engine, row, spans, table):
            rows = csv.reader(io.StringIO(block.decode(), newline=""))
            yield b"".join(
                _json_line({table.leading[0]: _key(cells[0], row), **_typed(table, cells[1:])}) for cells in rows
            )
        return
    for texts, cells in _inputs_and_results(engine, row, spans, table):
        results = csv.reader(io.StringIO(b"\n".join(cells).decode(), newline=""))
        yield b"".join(_extended(text, row, _typed(table, result)) for text, result in zip(texts, results, strict=True))


def results_parquet(engine: Engine, row: Row[Any], spans: Spans, *, include_inputs: bool) -> Iterator[bytes]:
    """A Parquet file of one row group per chunk; the caller's columns are text."""
    from api.parquet import stream  # noqa: PLC0415 - pyarrow is loaded by the first download that needs it

    table = table_of(engine, row, include_inputs=include_inputs)
    yield from stream(table, _rows(engine, row, spans, table, include_inputs=include_inputs))


def errors_csv(engine: Engine, row: Row[Any], *, keep_formulas: bool) -> Iterator[bytes]:
    yield _csv_line(predictions.ERROR_COLUMNS)
    for page in _error_pages(engine, row):
        records = (["" if cell is None else str(cell) for cell in error] for error in page)
        yield b"".join(_csv_line(cells if keep_formulas else [neutral(cell) for cell in cells]) for cells in records)


def errors_ndjson(engine: Engine, row: Row[Any]) -> Iterator[bytes]:
    for page in _error_pages(engine, row):
        yield b"".join(_json_line(dict(error._mapping)) for error in page)


def neutral(cell: str) -> str:
    """A cell that no spreadsheet runs: an apostrophe goes before text that begins like a formula; numbers stay."""
    return "'" + cell if cell.startswith(_FORMULA_START) and not _NUMBER.match(cell) else cell


def _exports(engine: Engine, row: Row[Any], spans: Spans, table: Table) -> Iterator[bytes]:
    def fetch(span: ChunkSpan) -> bytes:
        with transaction(engine) as connection:
            return _exported(connection, row, span, table, [table.key, *table.expressions])

    yield from filter(None, _ahead(fetch, spans))


def _exported(connection: Connection, row: Row[Any], span: ChunkSpan, table: Table, columns: Sequence[str]) -> bytes:
    """Raises Gone if retention took the job since its chunks were listed: a short file must not look like a whole one."""
    classes = table.output.classes or ()
    block = predictions.export(
        connection, row.id, span.first_row, columns, more_classes=0 if len(classes) == 2 else len(classes)
    )
    if not block and span.rows > span.rows_errored:
        raise _gone(row)
    return block


def _lines_with_inputs(engine: Engine, row: Row[Any], spans: Spans, table: Table) -> Iterator[bytes]:
    delimiter = row.delimiter.encode()
    for texts, cells in _inputs_and_results(engine, row, spans, table):
        inputs = texts if row.format == "csv" else [_csv_from_json(text, row) for text in texts]
        results = cells if delimiter == b"," else [_redelimited(cell, row.delimiter) for cell in cells]
        lines = [text + delimiter + cell for text, cell in zip(inputs, results, strict=True)]
        yield b"\n".join(lines) + b"\n" if lines else b""


def _inputs_and_results(
    engine: Engine, row: Row[Any], spans: Spans, table: Table
) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Per chunk: the text of the records that scored, and their result cells as CSV without a line end."""

    def fetch(span: ChunkSpan) -> tuple[list[bytes], list[bytes]]:
        with transaction(engine) as connection:
            payload = jobs.payload(connection, row.id, span.number)
            block = _exported(connection, row, span, table, table.expressions)
            errored = predictions.error_rows(connection, row.id, _range(span)) if span.rows_errored else []
        texts = raw_texts(unpack(payload, _MAX_CHUNK_BYTES), row.format, row.delimiter)
        if errored:
            left_out = {number - span.first_row for number in errored}
            texts = [text for place, text in enumerate(texts) if place not in left_out]
        return texts, _lines(block)

    yield from _ahead(fetch, spans)


def _rows(
    engine: Engine, row: Row[Any], spans: Spans, table: Table, *, include_inputs: bool
) -> Iterator[list[list[Any]]]:
    """Per chunk: the rows as lists of Python values."""
    if not include_inputs:
        for block in _exports(engine, row, spans, table):
            reader = csv.reader(io.StringIO(block.decode(), newline=""))
            yield [[_key(cells[0], row), *_typed(table, cells[1:]).values()] for cells in reader]
        return
    for texts, cells in _inputs_and_results(engine, row, spans, table):
        results = csv.reader(io.StringIO(b"\n".join(cells).decode(), newline=""))
        yield [
            [*_input_texts(text, row), *_typed(table, result).values()]
            for text, result in zip(texts, results, strict=True)
        ]


def _ahead(fetch: Callable[[ChunkSpan], Fetched], spans: Spans) -> Iterator[Fetched]:
    """The chunks in order, the next ones fetched while the client takes one."""
    with ThreadPoolExecutor(_FETCHED_AHEAD, "download") as pool:
        waiting: deque[Future[Fetched]] = deque()
        for span in spans:
            waiting.append(pool.submit(fetch, span))
            if len(waiting) > _FETCHED_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _error_pages(engine: Engine, row: Row[Any]) -> Iterator[Sequence[Row[Any]]]:
    after = 0
    while True:
        with transaction(engine) as connection:
            page = predictions.errors(connection, row.id, after, _ERRORS_PER_PAGE)
            over = not page and jobs.by_id(connection, row.id) is None
        if over:
            raise _gone(row)
        if not page:
            return
        yield page
        after = page[-1].row


def _gone(row: Row[Any]) -> Gone:
    return Gone(f"job {row.id} was removed by retention while it was being downloaded")


def _lines(block: bytes) -> list[bytes]:
    """The records of CSV that Postgres wrote; only class labels with odd characters are quoted in it."""
    if b'"' not in block:
        return block.removesuffix(b"\n").split(b"\n") if block else []
    return raw_texts(block, "csv")


def _range(span: ChunkSpan) -> Range:
    return Range(span.first_row, span.first_row + span.rows)


def _keys_may_hold_formula(block: bytes) -> bool:
    """Whether any line begins like a formula. Of our own columns only the key is the caller's text."""
    text = np.frombuffer(block, np.uint8)
    firsts = text[np.concatenate([[0], np.flatnonzero(text[:-1] == _LINE_FEED) + 1])]
    return bool(np.isin(firsts, _FIRST_BYTES).any())


def _neutral_csv(block: bytes, delimiter: str) -> bytes:
    """The same CSV with formulas neutralised; records without one are untouched, and cost no more than one search."""
    may_hold_formula = _formula_search(delimiter)
    if not may_hold_formula.search(block):
        return block
    return b"".join(
        _neutral_record(record, delimiter) if may_hold_formula.search(record) else record + b"\n"
        for record in raw_texts(block, "csv", delimiter)
    )


def _neutral_record(record: bytes, delimiter: str) -> bytes:
    cells = fields(record, delimiter)
    changed = [neutral(cell) for cell in cells]
    return (
        record + b"\n" if changed == cells else _csv_line(changed, delimiter)
    )  # else only numbers began like formulas


@cache
def _formula_search(delimiter: str) -> re.Pattern[bytes]:
    return re.compile(rb'(?m)(?:^|%b)"?[=+\-@\t\r]' % re.escape(delimiter.encode()))


def _typed(table: Table, cells: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, kind, cell in zip(table.names, table.kinds, cells, strict=True):
        if kind == "prediction":
            values[name] = label(cell, table.output)
        elif kind == "version":
            values[name] = cell
        else:
            values[name] = float(cell) if cell else None
    return values


def _extended(text: bytes, row: Row[Any], results: dict[str, Any]) -> bytes:
    """A record as one JSON line with its results as further members."""
    if row.format == "csv":
        return _json_line({**dict(zip(row.columns, fields(text, row.delimiter), strict=True)), **results})
    inner = text.strip().removesuffix(b"}").rstrip()
    return inner + (b"," if inner != b"{" else b"") + _json_line(results)[1:]


def _input_texts(text: bytes, row: Row[Any]) -> list[str | None]:
    """The caller's own cells of a record, in the order of the columns."""
    if row.format == "csv":
        return list(fields(text, row.delimiter))
    # Numbers as they were spelled, because a float may not hold all of their digits.
    record = json.loads(text, parse_float=_Spelled, parse_int=_Spelled)
    return [_as_text(record.get(name)) for name in row.columns]


class _Spelled(str):
    """A JSON number, as its text."""


def _csv_from_json(text: bytes, row: Row[Any]) -> bytes:
    return _csv_line([cell or "" for cell in _input_texts(text, row)], row.delimiter).removesuffix(b"\n")


def _redelimited(cells: bytes, delimiter: str) -> bytes:
    return _csv_line(next(csv.reader([cells.decode()])), delimiter).removesuffix(b"\n")


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else _json_text(value)
    return text.encode("utf-8", "replace").decode()  # JSON may escape a lone surrogate, which no other format can hold


def _json_text(value: Any) -> str:
    """A boolean, list or object of a record as JSON again."""
    if isinstance(value, _Spelled):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_json_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(name)}: {_json_text(item)}' for name, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _key(cell: str, row: Row[Any]) -> Any:
    if row.key_column is None:
        return int(cell)
    return cell or None


def _text(name: object) -> str:
    return str(name).lower() if isinstance(name, bool) else str(name)


def _csv_line(cells: Sequence[str], delimiter: str = ",") -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\r\n").writerow(cells)  # it quotes what its line end holds
    return buffer.getvalue().removesuffix("\r\n").encode() + b"\n"


def _json_line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
