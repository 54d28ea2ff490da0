"""CSV inputs by number: the same seed and number give the same bytes on every machine.

Five classes, from what people send to what nobody should: `tidy` files, tidy ones with `odd_cells`, with `ragged` rows and
headers, tidy ones with bytes `mutated`, and `noise`.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
from dataclasses import dataclass
from typing import Any

from in_process import TYPES

HEADER = ["id", *TYPES]
BOUNDARY = "b0undary"
DELIMITERS = [",", ",", ",", ";", "\t", "|", ":", " ", "~", "a", "1", "-", "'", "=", "\\", "."]
# Of each column: what scores, and what a person might write as well.
GOOD = {
    "id": ["c1", "007", "", "é", "=1+1", "'", "-5", "a b", "\u202eabc", "x\u200by", "NULL", "0", "9" * 30],
    "amount": ["1", "-0.5", ".5", "5.", "+1e3", "0", "-0", "1e-320", "12345678901234567890", " 7 ", "\t1\t", "1E+2"],
    "visits": ["3", "3.0", "1e3", "-2", "", "NA", "null", "9007199254740991", " 4", "+5", "None", "0.0"],
    "segment": ["gold", "new", "", "NA", " ", "=cmd()", "@x", "gold\nnew", 'a"b', "a,b", "\u00e9\u0301", "\U0001f600"],
    "active": ["true", "false", "True", "FALSE", "1", "0", " true ", "False", "TRUE"],
    "note": [
        "fine",
        "",
        "a;b",
        "x\r\ny",
        "it's",
        "\x1b[31mred",
        "<script>",
        '"; DROP TABLE job;--',
        "\ufeff",
        "+1",
        "\\N",
        "\\.",
    ],
    "seen": [
        "",
        "2013-04-30",
        "2013-04-30 08:15",
        "2013-04-30T08:15:00.25+02:00",
        "2013-04-30T08:15:00Z",
        "NaN",
        "N/A",
    ],
}
ODD = {
    "id": ["x" * 199, "x" * 200, "x" * 201, "\x7f", "\u2028", "\x85", "\x0b\x0c", " lead"],
    "amount": [
        "",
        "NA",
        "nan",
        "NAN",
        "inf",
        "-Infinity",
        "1e999",
        "1_000",
        "0x10",
        "\u0661\u0662",
        "1,5",
        "--1",
        "1e",
        ".",
        "1 2",
        "\u00a01",
        "true",
        "1\n",
        "+-3",
        "e5",
        "1e400",
        "-1e-999",
        "\uff11",
        "1d3",
        "1f",
        "(1)",
        "1%",
        "$1",
        "1.2.3",
        "\n",
        "1\v",
    ],
    "visits": ["3.5", "9007199254740992", "1e16", "0x1", "yes", "nan(1)", "Nan", "-", "1e-1", "inf", "9" * 400],
    "segment": ["x" * 200, "x" * 201, "\u00e9" * 200, "\u00e9" * 201, "\U0001f600" * 200],
    "active": ["yes", "no", "2", "", "tRUE", "1.0", "T", "on", "null", "01", "-1"],
    "note": ["x" * 201, "x" * 1_700, "\ud7ff", "\uffff", "\U0010ffff", "a\x00b", "\x1a", "\x01"],
    "seen": [
        "30.4.2013",
        "2013-02-30",
        "2013-04-30T25:00",
        "now",
        "0",
        "9999-12-31T23:59:59Z",
        "10000-01-01",
        "2013-04-30T08:15:00+99:99",
        "infinity",
        "-infinity",
        "epoch",
        "1677-01-01",
        "2013-04-30T08:15:00.1234567",
    ],
}
BYTES = [
    b'"',
    b'""',
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b",",
    b"\xf0\x9f",
    b"\x1f\x8b",
    b"\x1a",
    b"\xe2\x80\xa8",
    b"'",
    b"\\",
    b"=",
    b"\x85",
    b"\x0b",
]
# How files of other kinds begin.
MAGIC = [
    b"PK\x03\x04",
    b"%PDF-",
    b"PAR1\x15",
    b"ARROW1",
    b"BZh91AY",
    b"\x89PNG",
    b"\x1f\x8b\x08",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
]
CLASSES = ("tidy", "odd_cells", "ragged", "mutated", "noise")


@dataclass(frozen=True)
class Input:
    """A file, and how it is sent: in reads of at most `step` bytes, perhaps packed, perhaps as a form."""

    kind: str
    body: bytes
    delimiter: str = ","
    key_column: str | None = None
    step: int = 1 << 18
    gzip: bool = False
    form: bool = False

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}" if self.form else "text/csv"}
        return headers | ({"Content-Encoding": "gzip"} if self.gzip and not self.form else {})

    @property
    def query(self) -> dict[str, str]:
        return {"delimiter": self.delimiter} | ({"key_column": self.key_column} if self.key_column else {})

    @property
    def sent(self) -> Trickle:
        content = gzip.compress(self.body, 1, mtime=0) if self.gzip else self.body
        if self.form:
            head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="f.csv"\r\n\r\n'
            content = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
        return Trickle(content, self.step)


class Trickle(io.BytesIO):
    """A body that arrives in small pieces."""

    def __init__(self, content: bytes, step: int) -> None:
        super().__init__(content)
        self.size = len(content)
        self._step = step

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._step if size is None or size < 0 else min(size, self._step))

    def readinto(self, buffer: Any, /) -> int:
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def make(seed: int, number: int) -> Input:
    chance = random.Random(f"{seed}/{number}")
    kind = CLASSES[number % len(CLASSES)]
    delimiter = chance.choice(DELIMITERS)
    if kind == "noise":
        body = _noise(chance, delimiter)
    else:
        body = _table(chance, kind, delimiter)
        if kind == "mutated":
            body = _mutated(chance, body)
    return Input(
        kind,
        body,
        delimiter,
        key_column=chance.choice(["note", "amount", "seen", "segment", "id", "Id"]) if chance.random() < 0.1 else None,
        step=chance.choice([1, 2, 7, 50]) if chance.random() < 0.05 else 1 << 18,
        gzip=chance.random() < 0.1,
        form=chance.random() < 0.1,
    )


def _table(chance: random.Random, kind: str, delimiter: str) -> bytes:
    header = list(HEADER)
    if chance.random() < 0.3:
        chance.shuffle(header)
    if chance.random() < 0.3:
        header.insert(
            chance.randrange(len(header) + 1), chance.choice(["more", "row", "prediction", "=x", "é", "a\nb"])
        )
    odd = 0.08 if kind == "odd_cells" else 0.0
    rows = [[_cell(chance, name, odd) for name in header] for _ in range(chance.choice([0, 1, 1, 2, 3, 5, 8, 20]))]
    if kind == "ragged":
        _ragged(chance, header, rows)
    out = io.StringIO(newline="")
    end = chance.choice(["\n", "\n", "\r\n"])
    quoting = chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n", quoting=quoting)
    writer.writerow(header)
    for row in rows:
        writer.writerow(row)
        if chance.random() < 0.03:
            out.write("\r\n")
    text = out.getvalue()
    if end == "\n":
        text = text.replace("\r\n", "\n")
    if chance.random() < 0.3:
        text = text.removesuffix(end)
    body = text.encode("utf-8", "surrogatepass")
    return b"\xef\xbb\xbf" + body if chance.random() < 0.05 else body


def _cell(chance: random.Random, name: str, odd: float) -> str:
    if name not in GOOD:
        return chance.choice(["", "x", "=1", '"', "é", "a\nb"])
    return chance.choice(ODD[name] if chance.random() < odd else GOOD[name])


def _ragged(chance: random.Random, header: list[str], rows: list[list[str]]) -> None:
    for row in rows:
        if chance.random() < 0.3:
            row.pop() if chance.random() < 0.5 else row.extend(["x"] * chance.choice([1, 2, 30]))
    if chance.random() < 0.3:
        place = chance.randrange(len(header))
        header[place] = chance.choice(["", " ", header[0], header[-1], header[place].upper(), "x" * 300, "\u202e"])
    if chance.random() < 0.05:
        header.extend(f"c{number}" for number in range(30))


def _mutated(chance: random.Random, body: bytes) -> bytes:
    data = bytearray(body)
    if chance.random() < 0.05:
        return chance.choice(MAGIC) + body
    if chance.random() < 0.02:
        return body.decode().encode(chance.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32"]))
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        place = chance.randrange(len(data) + 1)
        act = chance.random()
        if act < 0.6:
            data[place:place] = chance.choice(BYTES)
        elif act < 0.75:
            del data[place : place + chance.choice([1, 1, 2, 10])]
        elif act < 0.9 and place < len(data):
            data[place] = chance.randrange(256)
        else:
            data[place:place] = data[chance.randrange(len(data) + 1) :][: chance.choice([5, 40, 400])]
    return bytes(data)


def _noise(chance: random.Random, delimiter: str) -> bytes:
    """Random bytes, some of them after a header that is right, some of an alphabet that means something."""
    size = chance.choice([0, 1, 2, 5, 20, 80, 400, 2_000])
    if chance.random() < 0.3:
        data = chance.randbytes(size)
    else:
        alphabet = [delimiter.encode(), b'"', b"\n", b"\r\n", b"1", b"a", b"", b" ", "é".encode(), b"true"]
        if chance.random() < 0.3:
            alphabet += [b"\r", b"\0", b"\xff"]
        data = b"".join(chance.choice(alphabet) for _ in range(size))
    return delimiter.join(HEADER).encode() + b"\n" + data if chance.random() < 0.8 else data
