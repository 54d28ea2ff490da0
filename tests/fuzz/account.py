"""What must become of a CSV input, worked out with Python's csv module and nothing of ours.

`docs/reference/uploads.md` and `docs/reference/cells.md` are the rules; here they are said a second time, slowly.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from in_process import BOUNDS, NULLABLE, TYPES

# Kinds of files that are told although they might be text.
MAGIC = (b"PK\x03\x04", b"%PDF-", b"PAR1\x15", b"ARROW1", b"BZh91AY", b"\x89PNG")
BOM = b"\xef\xbb\xbf"
NULL_WORDS = {"NA", "N/A", "NaN", "nan", "null", "NULL", "None"}
TRUE, FALSE = {"true", "True", "TRUE", "1"}, {"false", "False", "FALSE", "0"}
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Timestamps that are right; of others we only ask that they end one way or the other.
MOMENT = re.compile(
    r"20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])([ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?)?Z?"
)
FAULTY, EITHER = "row error", "either"
# Of each reason for a refusal, the words that tell it.
TOLD = {
    "nul": "NUL byte",
    "encoding": "not UTF-8",
    "utf-16": "is UTF-16",
    "bare return": "carriage return",
    "open quote": "does not end",
    "long record": "longer than the",
    "empty": "is empty",
    "other kind": "text. Export the table",
    "blank name": "has no name",
    "name twice": "more than once",
    "many columns": "columns, more than",
    "missing": "missing from the header",
    "other delimiter": "the header is a single column",
    "gzip": "gzip stream",
    "no key column": "the key column",
}

csv.field_size_limit(1 << 30)


@dataclass(frozen=True)
class Record:
    """Its cells, the physical line on which it begins, and its size in bytes with the line end."""

    cells: list[str]
    line: int
    size: int


@dataclass
class Account:
    """The columns and records as the csv module reads them, and every reason for which the file may be refused."""

    header: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    key_column: str | None = None

    def key(self, cells: Sequence[str]) -> str | None:
        place = self.header.index(self.key_column) if self.key_column is not None else len(cells)
        return cells[place] if place < len(cells) else None


def account_of(body: bytes, delimiter: str, key_column: str | None = None) -> Account:
    """What a file holds. Without a reason to refuse it, it must be taken; with one, it must not."""
    account = Account()
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        account.reasons.add("utf-16")
    if body.startswith(b"\x1f\x8b"):
        account.reasons |= {"gzip", "other kind"}  # the latter when it is compressed once more
    if b"\0" in body:
        account.reasons.add("nul")
    if body.startswith(MAGIC):
        account.reasons.add("other kind")
    body = body.removeprefix(BOM)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        account.reasons.add("encoding")
        text = body.decode("utf-8", "replace")
    found = _read(text.replace("\0", "\ufffd"), delimiter, account.reasons)
    if any(record.size > BOUNDS["max_record_bytes"] for record in found):
        account.reasons.add("long record")
    if found:
        account.header, account.records = found[0].cells, found[1:]
    account.reasons |= _faults_of(account.header)
    if key_column is not None and key_column not in account.header:
        account.reasons.add("no key column")
    wanted = key_column or "id"
    account.key_column = wanted if wanted in account.header else None
    return account


def expected(account: Account, cells: Sequence[str]) -> str | float:
    """The score of a record, or `FAULTY`, or `EITHER` for what is not worked out here."""
    if len(cells) != len(account.header):
        return FAULTY
    record = dict(zip(account.header, cells, strict=True))
    if len(account.key(cells) or "") > BOUNDS["max_cell_chars"]:
        return FAULTY
    values = {name: _value(kind, record[name]) for name, kind in TYPES.items()}
    if any(value is FAULTY or (value is None and name not in NULLABLE) for name, value in values.items()):
        return FAULTY
    if EITHER in values.values():
        return EITHER
    score = float(values["amount"] or 0.0) + float(values["visits"] or 0.0)
    return score if math.isfinite(score) else FAULTY


def told(detail: str) -> str | None:
    """The reason that a refusal gives."""
    return next((reason for reason, words in TOLD.items() if words in detail), None)


def _read(text: str, delimiter: str, reasons: set[str]) -> list[Record]:
    """The records, by lines that end with LF; what the csv module or we cannot read becomes a reason."""
    lines = io.StringIO(text, newline="\n").readlines()
    sizes = [len(line.encode()) for line in lines]
    reader = csv.reader(lines, delimiter=delimiter)
    found: list[Record] = []
    before = 0
    try:
        for cells in reader:
            if re.search(r"\r(\r\n|\r*\Z)", lines[reader.line_num - 1]):
                reasons.add("bare return")  # the csv module lets some pass at the end of a record
            if cells:
                found.append(Record(cells, before + 1, sum(sizes[before : reader.line_num])))
            before = reader.line_num
    except csv.Error:
        # What follows is not read here, and may be told as well.
        reasons |= {"bare return", "open quote"}
        found.append(Record([], before + 1, sum(sizes[before:])))
    if "open quote" not in reasons and _goes_on(lines, delimiter):
        reasons.add("open quote")
    return found


def _goes_on(lines: list[str], delimiter: str) -> bool:
    """Whether a line that is put after the text becomes a part of its last record."""
    ended = [*lines[:-1], lines[-1].removesuffix("\n") + "\n"] if lines else []
    return list(csv.reader([*ended, "\ue000\n"], delimiter=delimiter))[-1] != ["\ue000"]  # no delimiter is like it


def _faults_of(header: list[str]) -> set[str]:
    if not header:
        return {"empty"}
    faults = set()
    if len(header) > BOUNDS["max_columns"]:
        faults.add("many columns")
    if any(not name.strip() for name in header):
        faults.add("blank name")
    if len(set(header)) < len(header):
        faults.add("name twice")
    if not set(TYPES) <= set(header):
        faults |= {"missing", "other delimiter"} if len(header) == 1 else {"missing"}
    return faults


def _value(kind: str, cell: str) -> str | float | None:  # noqa: PLR0911 - a rule each
    if kind in ("category", "text"):
        return FAULTY if len(cell) > BOUNDS["max_cell_chars"] else cell or None
    cell = cell.strip(" \t")
    if cell == "" or cell in NULL_WORDS:
        return None
    if kind == "boolean":
        return 1.0 if cell in TRUE else 0.0 if cell in FALSE else FAULTY
    if kind == "timestamp":
        return 0.0 if MOMENT.fullmatch(cell) else EITHER
    if not NUMBER.fullmatch(cell):
        return FAULTY
    number = float(cell)
    if not math.isfinite(number):
        return FAULTY
    return number if kind == "number" or (number.is_integer() and abs(number) <= 2**53 - 1) else FAULTY
