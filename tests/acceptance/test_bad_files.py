"""The corpus of bad files: each gets the answer that `docs/reference/uploads.md` gives it, and none an error of ours."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from house import House
from toys import COLUMNS, csv_bytes

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "uploads.md"

HEADER = ["id", *COLUMNS]
GOOD = ["a", "1.5", "3", "gold", "true", "fine"]
LINE = csv_bytes(GOOD)
HEAD = csv_bytes(HEADER)
FILE = HEAD + LINE * 3
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + random.Random(1).randbytes(2_000)


@dataclass(frozen=True)
class Bad:
    """A file, and what it gets: a refusal whose text holds `told`, or a job with these counts and row errors."""

    name: str
    content: Callable[[], bytes]
    status: int
    told: str = ""
    succeeded: int = 0
    errors: tuple[tuple[int, str], ...] = ()


def with_rows(*rows: bytes) -> Callable[[], bytes]:
    return lambda: HEAD + b"".join(rows)


def with_amount(*cells: str) -> Callable[[], bytes]:
    return lambda: HEAD + b"".join(csv_bytes([cell, cell, *GOOD[2:]]) for cell in cells)


def exactly(content: bytes) -> Callable[[], bytes]:
    return lambda: content


@cache
def bomb() -> bytes:
    """100 MB in 100 kB."""
    return gzip.compress(HEAD + LINE * 4_400_000)


CORPUS = [
    Bad("empty", exactly(b""), 422, "The file is empty; its first line must name the columns"),
    Bad("only-a-bom", exactly(b"\xef\xbb\xbf"), 422, "The file is empty"),
    Bad("only-blank-lines", exactly(b"\n\r\n\n"), 422, "The file is empty"),
    Bad("header-only", exactly(HEAD), 202),
    Bad("header-without-line-end", exactly(HEAD.strip()), 202),
    Bad("one-row", with_rows(LINE), 202, succeeded=1),
    Bad("no-final-line-end", exactly(FILE.strip()), 202, succeeded=3),
    Bad("crlf", exactly(FILE.replace(b"\n", b"\r\n")), 202, succeeded=3),
    Bad("cr-only", exactly(FILE.replace(b"\n", b"\r")), 422, "carriage return (CR) without a line feed"),
    Bad("bom", exactly(b"\xef\xbb\xbf" + FILE), 202, succeeded=3),
    Bad("utf-16", exactly(FILE.decode().encode("utf-16")), 422, "The file is UTF-16 text, expected UTF-8"),
    Bad("utf-16-without-bom", exactly(FILE.decode().encode("utf-16-le")), 422, "It looks like UTF-16LE"),
    Bad("latin-1", with_rows(LINE, LINE.replace(b"fine", b"M\xfcller")), 422, "Line 3 is not UTF-8: byte 0xfc"),
    Bad("nul", with_rows(LINE, LINE.replace(b"fine", b"f\0ne")), 422, "Line 3 holds a NUL byte"),
    Bad(
        "ragged-rows",
        with_rows(LINE, b"a,1.5,3,gold,true\n", LINE, b"a,1.5,3,gold,true,fine,more\n", LINE),
        202,
        succeeded=3,
        errors=((2, "wrong_field_count"), (4, "wrong_field_count")),
    ),
    Bad("quoted-line-ends", with_rows(b'a,1.5,3,gold,true,"two\nlines"\n', LINE), 202, succeeded=2),
    Bad(
        "unterminated-quote", with_rows(LINE, b'a,1.5,3,gold,true,"fine\n', LINE), 422, "begins on line 3 does not end"
    ),
    Bad(
        "unterminated-quote-in-a-large-file",
        lambda: HEAD + b'a,1.5,3,gold,true,"fine\n' + LINE * 60_000,
        422,
        "a quote was probably not closed",
    ),
    Bad("quote-in-a-cell", with_rows(b'a,1.5,3,gold,true,5" pipe\n', LINE), 202, succeeded=2),
    Bad(
        "duplicate-header",
        exactly(csv_bytes([*HEADER, "note"], [*GOOD, "x"])),
        422,
        'names the column "note" more than once',
    ),
    Bad("blank-header", exactly(csv_bytes([*HEADER, " "], [*GOOD, "x"])), 422, "Column 7 of 7 on line 1 has no name"),
    Bad("missing-column", exactly(csv_bytes(HEADER[:-1], GOOD[:-1])), 422, "column 'note' is missing"),
    Bad("misspelt-column", exactly(FILE.replace(b"segment", b"Segmnt")), 422, "did you mean 'Segmnt'"),
    Bad("no-header", exactly(LINE * 3), 422, "'amount', 'visits', 'segment', 'active', 'note'"),
    Bad("extra-column", exactly(csv_bytes([*HEADER, "more"], [*GOOD, "x"])), 202, succeeded=1),
    Bad("other-delimiter", exactly(FILE.replace(b",", b";")), 422, "if ';' separates the columns"),
    Bad("5-mb-cell", lambda: HEAD + LINE.replace(b"fine", b"x" * 5_000_000), 422, "longer than the 1,048,576 bytes"),
    Bad(
        "100-kb-cell",
        lambda: HEAD + LINE + LINE.replace(b"fine", b"x" * 100_000) + LINE,
        202,
        succeeded=2,
        errors=((2, "too_long"),),
    ),
    Bad("png", exactly(PNG), 422, "The file is a PNG image, not CSV text"),
    Bad("zip", exactly(b"PK\x03\x04" + PNG), 422, "an Excel workbook (.xlsx)"),
    Bad("noise", exactly(random.Random(2).randbytes(3_000).replace(b"\0", b"")), 422, "is not UTF-8"),
    Bad("truncated-gzip", lambda: gzip.compress(FILE)[:-12], 422, "The gzip stream ends early"),
    Bad("damaged-gzip", lambda: gzip.compress(FILE)[:-6] + b"123456", 422, "The gzip stream is damaged"),
    Bad("gzip-twice", lambda: gzip.compress(gzip.compress(FILE)), 422, "compressed twice with gzip"),
    Bad("gzip-bomb", bomb, 413, "as a gzip bomb does"),
    Bad("blank-lines", with_rows(b"\n", LINE, b"\r\n\n", LINE, b"\n"), 202, succeeded=2),
    Bad(
        "3000-columns",
        exactly(csv_bytes([*HEADER, *(f"c{number}" for number in range(2_994))], [*GOOD, *["0"] * 2_994])),
        422,
        "3,000 columns, more than the 2,000 allowed",
    ),
    Bad(
        "infinite",
        with_amount("inf", "-Infinity", "1e999", "1.5"),
        202,
        succeeded=1,
        errors=((1, "non_finite"), (2, "non_finite"), (3, "non_finite")),
    ),
    Bad(
        "nan",
        with_amount("nan", "NaN", "", "1.5"),
        202,
        succeeded=1,
        errors=tuple((n, "missing_value") for n in (1, 2, 3)),
    ),
    Bad(
        "odd-numbers",
        with_amount("1_000", "\u0661\u0662", "0x10", "1,5", "1.5e0"),
        202,
        succeeded=1,
        errors=tuple((n, "wrong_type") for n in (1, 2, 3, 4)),
    ),
    Bad(
        "fraction-as-integer",
        with_rows(LINE.replace(b",3,", b",3.5,"), LINE.replace(b",3,", b",3.0,")),
        202,
        succeeded=1,
        errors=((1, "wrong_type"),),
    ),
]


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("bad", CORPUS, ids=lambda bad: bad.name)
def test_a_bad_file_gets_its_documented_answer(house: House, bad: Bad, compressed: bool) -> None:
    content = bad.content()
    if compressed and not content.startswith(b"\x1f\x8b"):
        content = gzip.compress(content, 1)
    answer = house.upload(content, headers={"Content-Encoding": "gzip"} if compressed else {})
    assert answer.status == bad.status, answer.body
    if bad.status != 202:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert bad.told in answer.told
        return
    job = house.finished(answer)
    assert (job.rows.succeeded, job.rows.errored) == (bad.succeeded, len(bad.errors))
    assert [(error["row"], error["code"]) for error in house.errors(job.id)] == list(bad.errors)
    assert len(house.rows(job.id)) == bad.succeeded


def test_nothing_of_a_refused_file_is_left(house: House) -> None:
    """Of one whose fault comes late, after chunks of it were stored and scored."""
    content = HEAD + b"late-fault,1.5,3,gold,true,fine\n" * 8_000 + b"\xff\n"
    answer = house.upload(content, headers={"Idempotency-Key": "late-fault"})
    assert (answer.status, "Line 8002 is not UTF-8" in answer.told) == (422, True)
    assert house.query("SELECT 1 FROM job WHERE idempotency_key = 'late-fault'") == []
    assert house.query("SELECT 1 FROM prediction WHERE record_key = 'late-fault'") == []
    assert house.upload(FILE, headers={"Idempotency-Key": "late-fault"}).status == 202


def test_a_file_without_rows_is_a_job_with_an_empty_result(house: House) -> None:
    job = house.finished(house.upload(HEAD))
    assert (job.state, job.rows.total, job.progress) == ("succeeded", 0, 1.0)
    assert house.text(job.id) == "id,prediction,probability,model_version\n"
    assert house.text(job.id, include="inputs") == HEAD.decode().strip() + ",prediction,probability,model_version\n"
    assert house.text(job.id, format="ndjson") == ""
    assert house.text(job.id, "errors") == "row,line,key,code,column,message,raw\n"
    assert house.call("GET", f"/v1/jobs/{job.id}/results?format=parquet").body.startswith(b"PAR1")


def test_the_page_names_each_kind_of_file_with_its_answer() -> None:
    documented = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            documented[cells[0].strip("`")] = cells[1]
    assert documented == {bad.name: str(bad.status) for bad in CORPUS}
