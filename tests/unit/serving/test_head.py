"""A head that was parsed once stands for the next messages that begin with it: never for one that a parser reads otherwise."""

from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.serving.protocol import _Head

MATCH: Any = object()


class Parsed:
    def __init__(self) -> None:
        self.messages: list[tuple[bytes, tuple[tuple[bytes, bytes], ...], bytes]] = []
        self._url, self._headers, self._body = b"", list[tuple[bytes, bytes]](), b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.messages.append((self._url, tuple(self._headers), self._body))
        self._url, self._headers, self._body = b"", [], b""


def parsed(chunk: bytes) -> list[tuple[bytes, tuple[tuple[bytes, bytes], ...], bytes]]:
    told = Parsed()
    try:
        httptools.HttpRequestParser(told).feed_data(chunk)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return []
    return told.messages


def message(
    body: bytes, length: bytes | None = None, name: bytes = b"Content-Length", more: bytes = b""
) -> bytes:
    length = b"%d" % len(body) if length is None else length
    return (
        b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"
        + name
        + b": "
        + length
        + b"\r\n"
        + more
        + b"\r\n"
        + body
    )


def head_of(chunk: bytes) -> _Head | None:
    [(_, headers, body)] = parsed(chunk)
    return _Head.of(chunk, body, MATCH, dict(headers))


@pytest.mark.parametrize("name", [b"content-length", b"Content-Length"])
def test_messages_of_any_length_begin_with_it(name: bytes) -> None:
    head = head_of(message(b"{}", name=name, more=b"accept: */*\r\n"))
    assert head is not None
    assert head.headers == {b"host": b"x", b"accept": b"*/*"}
    for body in (b"{}", b"", b"[1]", b"x" * 100_000):
        assert head.body_of(message(body, name=name, more=b"accept: */*\r\n")) == body


@pytest.mark.parametrize(
    "chunk",
    [
        message(b"abc", b"4"),
        message(b"abc", b"2"),
        message(b"abc", b"03"),
        message(b"abc", b"+3"),
        message(b"abc", b" 3"),
        message(b"abc", b"3 "),
        message(b"abc", b""),
        message(b"abc", b"3\r\nx: y"),
        message(b"abc", b"3\r\nContent-Length: 3"),
        message(b"abc", b"3\r\nTransfer-Encoding: chunked"),
        message(b"", b"0" * 30),
        message(b"abc", name=b"content-length"),
        message(b"abc")[:-1],
        message(b"abc") + b"d",
        message(b"abc") * 2,
        b"",
        b"\r\n",
    ],
)
def test_nothing_else_does(chunk: bytes) -> None:
    head = head_of(message(b"{}"))
    assert head is not None
    assert head.body_of(chunk) is None


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_what_it_takes_a_parser_reads_the_same(data: st.DataObject) -> None:
    head = head_of(message(data.draw(st.binary(max_size=20)), more=b"a: b\r\n"))
    assert head is not None
    whole = message(data.draw(st.binary(max_size=30)), more=b"a: b\r\n")
    spot = data.draw(st.integers(0, len(whole)))
    cut = data.draw(st.integers(spot, min(len(whole), spot + 3)))
    put = data.draw(st.text("0123456789 \t\r\n:+-ab", max_size=4)).encode()
    chunk = whole[:spot] + put + whole[cut:]
    body = head.body_of(chunk)
    if body is not None:
        [(url, headers, told)] = parsed(chunk)
        assert (url, told) == (b"/v2/models/m/infer", body)
        assert headers == ((b"host", b"x"), (b"content-length", b"%d" % len(body)), (b"a", b"b"))
