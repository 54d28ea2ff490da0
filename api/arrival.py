"""What has come of a request so far, and whether a thread can answer it without waiting for its head."""

from __future__ import annotations

import re

# Of a head altogether; gunicorn bounds its lines and their number.
MAX_HEAD_BYTES = 64 * 1024
# A body of at most this length is awaited before a thread is spent on the request.
SHORT_BODY_BYTES = 64 * 1024

_END = b"\r\n\r\n"
# No head of HTTP has one. The parser refuses it, so there is nothing to wait for.
_BARE_LF = re.compile(rb"(?<!\r)\n")
_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)
# A client that expects 100 sends its body when it was told to.
_EXPECTS = re.compile(rb"\r\nexpect[ \t]*:", re.IGNORECASE)


class Arrival:
    """The bytes of one request, as they come in.

    What is read here of the head only decides when to stop waiting. The parser reads it again, and decides the rest.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.body_bytes = 0
        self._needed: int | None = None

    @property
    def has_head(self) -> bool:
        return self._needed is not None

    @property
    def is_whole(self) -> bool:
        """The head is there, and its body if that is a short one of known length."""
        return self._needed is not None and len(self.data) >= self._needed

    @property
    def is_too_long(self) -> bool:
        """There are more bytes than a head may have, and its end is not among them."""
        return self._needed is None and len(self.data) > MAX_HEAD_BYTES

    def add(self, data: bytes) -> None:
        """Each byte is looked at once, however small the pieces are."""
        seen = len(self.data)
        self.data += data
        if self._needed is not None:
            return
        end = self.data.find(_END, max(seen - len(_END) + 1, 0))
        if 0 <= end <= MAX_HEAD_BYTES:
            self.body_bytes = _short_body(bytes(self.data[: end + len(_END)]))
            self._needed = end + len(_END) + self.body_bytes
        elif end < 0 and _BARE_LF.search(self.data, seen):
            self._needed = 0


def _short_body(head: bytes) -> int:
    """Bytes of the body to wait for; 0 for a body that is to be read as it comes."""
    found = _LENGTH.search(head)
    length = 0 if found is None or _EXPECTS.search(head) else int(found[1])
    return length if length <= SHORT_BODY_BYTES else 0
