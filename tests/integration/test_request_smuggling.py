"""Requests whose ends two readers might see in two places: each connection gets one refusal, and then it is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import Server, serving

HOST = b"Host: s\r\n"
# What must never be answered: it is hidden in what comes before it.
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: s\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def post(*headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /a HTTP/1.1\r\n" + HOST + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


REFUSED = {
    "length and chunks": post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunks and length": post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"0\r\n\r\n" + HIDDEN),
    "two lengths": post(b"Content-Length: 0", b"Content-Length: 36", body=HIDDEN),
    "two equal lengths": post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc" + HIDDEN),
    "a list of lengths": post(b"Content-Length: 3, 3", body=b"abc" + HIDDEN),
    "a length with a sign": post(b"Content-Length: +3", body=b"abc" + HIDDEN),
    "a negative length": post(b"Content-Length: -1", body=HIDDEN),
    "a length in hexadecimal": post(b"Content-Length: 0x3", body=b"abc" + HIDDEN),
    "a length with digits of another script": post("Content-Length: ٣".encode(), body=b"abc" + HIDDEN),
    "a length with an underscore": post(b"Content-Length: 1_0", body=b"abc" + HIDDEN),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunked, then something": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + HIDDEN),
    "an unknown coding": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + HIDDEN),
    "a quoted coding": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n" + HIDDEN),
    "a coding without chunks": post(b"Transfer-Encoding: gzip", body=HIDDEN),
    "a control character in the coding": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunks in HTTP/1.0": post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    + HIDDEN,
    "a space before the colon": post(b"Content-Length : 3", body=b"abc" + HIDDEN),
    "an underscore in a name": post(b"Content_Length: 3", body=b"abc" + HIDDEN),
    "a folded header": post(b"X: a\r\n b", body=HIDDEN),
    "a folded first header": b"GET / HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n" + HIDDEN,
    "a bare LF": b"GET / HTTP/1.1\nHost: s\n\n" + HIDDEN,
    "a bare LF in a header": post(b"X: a\nContent-Length: 36", body=HIDDEN),
    "a bare CR in a header": post(b"X: a\rContent-Length: 36", body=HIDDEN),
    "a NUL in a header": post(b"X: a\0b", body=HIDDEN),
    "a header without a colon": post(b"Content-Length 3", body=b"abc" + HIDDEN),
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /\r\n\r\n" + HIDDEN,
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n" + HIDDEN,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "no version": b"GET / HTTP\r\n" + HOST + b"\r\n" + HIDDEN,
    "a space in the path": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "a method in lower case": b"get / HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "authority form": b"GET s:80 HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "two blank lines": b"\r\n\r\n" + HIDDEN,
    "an unknown expectation": post(b"Expect: the-worst", b"Content-Length: 3", body=b"abc" + HIDDEN),
}
BROKEN_CHUNKS = {
    "a size that is none": b"zz\r\nabc\r\n0\r\n\r\n",
    "a size with a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a size with a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "a size that is too small": b"2\r\nabc\r\n0\r\n\r\n",
    "a size that is too large": b"ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "an empty size": b"\r\nabc\r\n0\r\n\r\n",
    "a bare LF after the size": b"3\nabc\r\n0\r\n\r\n",
    "a bare CR in an extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "an endless extension": b"3;" + b"a" * 200_000,
    "a length among the trailers": b"3\r\nabc\r\n0\r\nContent-Length: 36\r\n\r\n",
    "no end": b"3\r\nabc\r\n0\r\n",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("smuggling")) as server:
        yield server


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_ambiguous_is_refused_and_ends_the_connection(server: Server, name: str) -> None:
    (answer,) = server.answers(REFUSED[name])
    assert 400 <= answer.status < 500
    assert answer.headers["connection"] == "close"
    assert b"hidden" not in answer.body


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_nothing_behind_broken_chunks_is_answered(server: Server, name: str) -> None:
    """The application that reads the body decides what is said of it; here the server does."""
    answers = server.answers(CHUNKED + BROKEN_CHUNKS[name] + HIDDEN)
    assert len(answers) <= 1
    assert all(400 <= answer.status < 500 and b"hidden" not in answer.body for answer in answers)


def test_absolute_form_is_the_same_path(server: Server) -> None:
    (answer,) = server.answers(b"GET http://other.example/a HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n")
    assert (answer.status, b'"path": "/a"' in answer.body) == (200, True)


def test_garbage_behind_a_request_gets_an_answer_of_its_own(server: Server) -> None:
    first = b"GET /a HTTP/1.1\r\nHost: s\r\n\r\n"
    answers = server.answers(first + b"\x00\xff garbage\r\n\r\n" + HIDDEN)
    assert [answer.status for answer in answers] == [200, 400]


def test_the_server_does_not_tell_what_it_is(server: Server) -> None:
    assert server.get().headers["server"] == "scorehouse"
