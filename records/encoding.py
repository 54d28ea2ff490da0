"""What makes an upload text that can be read: UTF-8 without NUL, and not some other kind of file.

Each refusal says which kind of file it looks like, where the first bad byte stands, and how to convert it.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import NoReturn

from errors import InvalidInput, Problem

BOM = b"\xef\xbb\xbf"
_SNIFFED_BYTES = 512  # of the start of a file, enough to tell UTF-16 from a stray NUL

_MAGIC = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook (.xlsx)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)"),
    (b"%PDF-", "a PDF document"),
    (b"PAR1\x15", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x1f\x8b", "compressed twice with gzip"),
    (b"BZh91AY", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"7z\xbc\xaf", "a 7z archive"),
)


@dataclass(slots=True)
class Source:
    """A file being read: what it should be ("CSV", "NDJSON") and its first bytes, by which to recognise what it is."""

    kind: str
    head: bytes = b""

    def see(self, block: bytes) -> None:
        """Keep the first bytes of the file; to be called with each block."""
        if len(self.head) < _SNIFFED_BYTES:
            self.head += block[: _SNIFFED_BYTES - len(self.head)]

    def refuse_other_kinds(self) -> None:
        """Raises InvalidInput when the file is UTF-16, or begins like an image, an archive or the like."""
        if self.head.startswith((b"\xff\xfe", b"\xfe\xff")):
            _refuse(1, f"The file is UTF-16 text, expected UTF-8. {_convert('UTF-16')}")
        for magic, name in _MAGIC:
            if self.head.startswith(magic):
                _refuse(
                    1,
                    f"The file is {name}, not {self.kind} text. "
                    f"Export the table as {self.kind} in UTF-8 and upload that",
                )

    def refuse_nul(self, *, line: int, offset: int) -> NoReturn:
        """Raises InvalidInput for the NUL byte at `offset`, in the physical line `line`."""
        self.refuse_other_kinds()
        where = f"Line {line} holds a NUL byte (at byte offset {offset:,} of the file), so it is not UTF-8 text. "
        encoding = _utf16_flavour(self.head)
        if encoding:
            _refuse(line, f"{where}It looks like {encoding}. {_convert(encoding)}")
        _refuse(line, f"{where}Remove the NUL bytes, for instance with `tr -d '\\000' < old.csv > new.csv`")

    def check_utf8(self, data: bytes, *, line: int, offset: int, final: bool = True) -> None:
        """Check a part of the file that begins at a physical line and a byte offset; `final`: not amid a character.

        Raises:
            InvalidInput: it is not UTF-8; names the line and the byte.
        """
        if data.isascii():
            return
        try:
            codecs.utf_8_decode(data, "strict", final)
        except UnicodeDecodeError as exc:
            self.refuse_other_kinds()
            place = exc.start
            bad_line = line + data.count(b"\n", 0, place)
            _refuse(
                bad_line,
                f"Line {bad_line} is not UTF-8: byte 0x{data[place]:02x} at byte offset {offset + place:,} of the file. "
                f"If the file is Latin-1, as spreadsheets often write it: {_convert('LATIN1')}",
                cause=exc,
            )


def _utf16_flavour(head: bytes) -> str | None:
    even, odd = head[::2], head[1::2]
    even_zeros, odd_zeros = even.count(0) / max(len(even), 1), odd.count(0) / max(len(odd), 1)
    if odd_zeros > 0.7 and even_zeros < 0.1:
        return "UTF-16LE"
    if even_zeros > 0.7 and odd_zeros < 0.1:
        return "UTF-16BE"
    return None


def _convert(encoding: str) -> str:
    return f"Convert it with `iconv -f {encoding} -t UTF-8 old.csv > new.csv` and upload the new file"


def _refuse(line: int, detail: str, cause: Exception | None = None) -> NoReturn:
    raise InvalidInput(detail, [Problem(detail, f"#/line/{line}")]) from cause
