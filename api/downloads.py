"""Downloads of results and row errors: streamed chunk by chunk in input order, memory bounded by one chunk."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Row

from api.rendering import label, output_of
from db import jobs, predictions
from db.engine import transaction
from db.jobs import ChunkSpan
from db.predictions import Range
from records.payload import unpack
from records.split import raw_texts
from registry.signature import Output

_ERRORS_PER_PAGE = 2_000
_MAX_CHUNK_BYTES = 1 << 30

# A cell that begins like this runs as a formula in a spreadsheet.
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r")
_MAY_HOLD_FORMULA = re.compile(rb'(?m)(?:^|[,;\t|])"?[=+\-@\t\r]')
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z")


@dataclass(frozen=True)
class Table:
    """How the results of one job look: names of the columns, and the SQL that gives each."""

    key: str
    names: list[str]
    expressions: list[str]
    output: Output
    numbered: bool

    @property
    def header(self) -> list[str]:
        return [self.key, *self.names]


def table_of(row: Row[Any]) -> Table:
    """The result columns of a job: key (or row number), prediction, probabilities, version."""
    output = output_of(row)
    names, expressions = ["prediction"], ["prediction"]
    if output.has_probability and output.classes is not None:
        if len(output.classes) == 2:
            names.append("probability")
            expressions.append("probability")
        else:
            names += [f"probability_{_text(name)}" for name in output.classes]
            expressions += [f"probabilities[{place}]" for place in range(1, len(output.classes) + 1)]
    key = row.key_column or "row"
    return Table(
        key=key,
        names=[*names, "model_version"],
        expressions=["record_key" if row.key_column else "row", *expressions, f"'{row.model_version}'"],
        output=output,
        numbered=row.key_column is None,
    )


def results_csv(engine: Engine, row: Row[Any], *, keep_formulas: bool) -> Iterator[bytes]:
    """Key, prediction, probabilities, version."""
    table = table_of(row)
    yield _csv_line(table.header)
    for block in _exports(engine, row, table):
        yield block if keep_formulas else _neutral_csv(block, ",")


def results_with_inputs_csv(engine: Engine, row: Row[Any], *, keep_formulas: bool) -> Iterator[bytes]:
    """The caller's columns, their text untouched, then prediction, probabilities, version."""
    table = table_of(row)
    names = [name if name not in row.columns else f"scorehouse_{name}" for name in table.names]
    yield _csv_line([*row.columns, *names], row.delimiter)
    delimiter = row.delimiter.encode()
    for texts, cells in _inputs_and_results(engine, row, table):
        inputs = texts if row.format == "csv" else [_csv_from_json(text, row.columns) for text in texts]
        results = cells if delimiter == b"," else [_redelimited(cell, row.delimiter) for cell in cells]
        lines = [text + delimiter + cell for text, cell in zip(inputs, results, strict=True)]
        block = b"\n".join(lines) + b"\n" if lines else b""
        yield block if keep_formulas else _neutral_csv(block, row.delimiter)


def results_ndjson(engine: Engine, row: Row[Any], *, include_inputs: bool) -> Iterator[bytes]:
    """One JSON object per row, typed: numbers are numbers."""
    table = table_of(row)
    if not include_inputs:
        for block in _exports(engine, row, table):
            rows = csv.reader(io.StringIO(block.decode(), newline=""))
            yield b"".join(_json_line({table.key: _key(cells[0], row), **_typed(table, cells[1:])}) for cells in rows)
        return
    for texts, cells in _inputs_and_results(engine, row, table):
        results = csv.reader(io.StringIO(b"\n".join(cells).decode(), newline=""))
        yield b"".join(
            _json_line({**_inputs(text, row), **_typed(table, result)})
            for text, result in zip(texts, results, strict=True)
        )


def results_parquet(engine: Engine, row: Row[Any], *, include_inputs: bool) -> Iterator[bytes]:
    """A Parquet file of one row group per chunk; the caller's columns are text."""
    from api.parquet import stream  # noqa: PLC0415 - pyarrow is loaded by the first download that needs it

    table = table_of(row)
    names = [*row.columns, *table.names] if include_inputs else table.header
    yield from stream(names, table, _rows(engine, row, table, include_inputs=include_inputs))


def errors_csv(engine: Engine, row: Row[Any], *, keep_formulas: bool) -> Iterator[bytes]:
    yield _csv_line(predictions.ERROR_COLUMNS)
    for page in _error_pages(engine, row):
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        for error in page:
            cells = ["" if cell is None else str(cell) for cell in error]
            writer.writerow(cells if keep_formulas else [neutral(cell) for cell in cells])
        yield buffer.getvalue().encode()


def errors_ndjson(engine: Engine, row: Row[Any]) -> Iterator[bytes]:
    for page in _error_pages(engine, row):
        yield b"".join(_json_line(dict(error._mapping)) for error in page)


def neutral(cell: str) -> str:
    """A cell that no spreadsheet runs: an apostrophe goes before text that begins like a formula; numbers stay."""
    return "'" + cell if cell.startswith(_FORMULA_START) and not _NUMBER.match(cell) else cell


def _exports(engine: Engine, row: Row[Any], table: Table) -> Iterator[bytes]:
    for span in _finished(engine, row):
        with transaction(engine) as connection:
            block = predictions.export(connection, row.id, _range(span), table.expressions)
        if block:
            yield block


def _inputs_and_results(engine: Engine, row: Row[Any], table: Table) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Per chunk: the text of the records that scored, and their result cells as CSV without a line end."""
    for span in _finished(engine, row):
        with transaction(engine) as connection:
            payload = jobs.payload(connection, row.id, span.number)
            block = predictions.export(connection, row.id, _range(span), table.expressions[1:])
            errored = predictions.error_rows(connection, row.id, _range(span)) if span.rows_errored else []
        texts = raw_texts(unpack(payload, _MAX_CHUNK_BYTES), row.format, row.delimiter)
        if errored:
            left_out = {number - span.first_row for number in errored}
            texts = [text for place, text in enumerate(texts) if place not in left_out]
        yield texts, _lines(block)


def _rows(engine: Engine, row: Row[Any], table: Table, *, include_inputs: bool) -> Iterator[list[list[Any]]]:
    """Per chunk: the rows as lists of Python values."""
    if not include_inputs:
        for block in _exports(engine, row, table):
            reader = csv.reader(io.StringIO(block.decode(), newline=""))
            yield [[_key(cells[0], row), *_typed(table, cells[1:]).values()] for cells in reader]
        return
    for texts, cells in _inputs_and_results(engine, row, table):
        results = csv.reader(io.StringIO(b"\n".join(cells).decode(), newline=""))
        yield [
            [*(_as_text(_inputs(text, row).get(name)) for name in row.columns), *_typed(table, result).values()]
            for text, result in zip(texts, results, strict=True)
        ]


def _finished(engine: Engine, row: Row[Any]) -> Iterator[ChunkSpan]:
    """The chunks whose results can be shown: up to the first that is not done yet, or all that were done."""
    with transaction(engine) as connection:
        spans = jobs.spans(connection, row.id)
    for span in spans:
        if span.state == "done":
            yield span
        elif span.state != "canceled":
            return


def _error_pages(engine: Engine, row: Row[Any]) -> Iterator[Sequence[Row[Any]]]:
    after = 0
    while True:
        with transaction(engine) as connection:
            page = predictions.errors(connection, row.id, after, _ERRORS_PER_PAGE)
        if not page:
            return
        yield page
        after = page[-1].row


def _lines(block: bytes) -> list[bytes]:
    """The records of CSV that Postgres wrote; only class labels with odd characters are quoted in it."""
    if b'"' not in block:
        return block.removesuffix(b"\n").split(b"\n") if block else []
    return raw_texts(block, "csv")


def _range(span: ChunkSpan) -> Range:
    return Range(span.first_row, span.first_row + span.rows)


def _neutral_csv(block: bytes, delimiter: str) -> bytes:
    """The same CSV with formulas neutralised; untouched, and at the cost of one search, when there is none."""
    if not _MAY_HOLD_FORMULA.search(block):
        return block
    rows = csv.reader(io.StringIO(block.decode(), newline=""), delimiter=delimiter)
    return _rewritten(block, rows, delimiter)


def _rewritten(block: bytes, rows: Iterable[list[str]], delimiter: str) -> bytes:
    kept = list(rows)
    changed = [[neutral(cell) for cell in cells] for cells in kept]
    if changed == kept:  # only numbers began like formulas
        return block
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(changed)
    return buffer.getvalue().encode()


def _typed(table: Table, cells: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, cell in zip(table.names, cells, strict=True):
        if name == "prediction":
            values[name] = label(cell, table.output)
        elif name == "model_version":
            values[name] = cell
        else:
            values[name] = float(cell) if cell else None
    return values


def _inputs(text: bytes, row: Row[Any]) -> dict[str, Any]:
    if row.format == "ndjson":
        value: dict[str, Any] = json.loads(text)
        return value
    cells = next(csv.reader(io.StringIO(text.decode(), newline=""), delimiter=row.delimiter))
    return dict(zip(row.columns, cells, strict=True))


def _csv_from_json(text: bytes, columns: Sequence[str]) -> bytes:
    record = json.loads(text)
    return _csv_line([_as_text(record.get(name)) or "" for name in columns]).removesuffix(b"\n")


def _redelimited(cells: bytes, delimiter: str) -> bytes:
    return _csv_line(next(csv.reader([cells.decode()])), delimiter).removesuffix(b"\n")


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _key(cell: str, row: Row[Any]) -> Any:
    if row.key_column is None:
        return int(cell)
    return cell or None


def _text(name: object) -> str:
    return str(name).lower() if isinstance(name, bool) else str(name)


def _csv_line(cells: Sequence[str], delimiter: str = ",") -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode()


def _json_line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
