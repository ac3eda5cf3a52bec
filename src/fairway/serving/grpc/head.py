"""The headers that open a call, read once for every different block of bytes that says them.

A client sends the same headers again and again, and once its compression table has settled it does so with the same
few bytes. Reading a block that leaves the table as it was gives the same headers as long as nothing else changes the
table, so those are kept by their bytes; a change throws them away.

Sources: RFC 9113 section 8, RFC 7541, grpc/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from hpack import Decoder, HPACKError

from fairway.serving.grpc.frames import ConnectionFault, Reason

_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])\Z")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+\Z")
_VALUE = re.compile(rb"[^\x00\r\n]*\Z")
_OF_A_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_KEPT = 256
_KEPT_BYTES = 256 * 1024
_LARGEST_KEPT = 8 * 1024
_FIELD_SIZE = 32  # what a field counts beside its text, as in RFC 7541, section 4.1
_SIZE_UPDATE = 0x20


class Head(msgspec.Struct, frozen=True, gc=False):
    """What a call asks for. `timeout` is seconds from its arrival. `malformed` says how it breaks HTTP/2, `status` is
    the HTTP status of a request that is not gRPC (0: it is). `method` is what the service found for the path."""

    path: str
    method: Any
    timeout: float | None
    encoding: bytes
    headers: dict[bytes, bytes]
    malformed: str | None = None
    status: int = 0
    size: int = 0
    """Bytes of the headers, unpacked."""


class HeadReader:
    """Header blocks of one connection. `find` gives the service's method for a path, None for an unknown one."""

    def __init__(self, find: Callable[[str], Any], largest: int) -> None:
        self._decoder = Decoder(max_header_list_size=largest)
        self._find = find
        self._known: dict[bytes, Head] = {}
        self._known_bytes = 0

    def read(self, block: bytes) -> Head:
        """Raises ConnectionFault: a compression table that may differ from the peer's is of no more use."""
        known = self._known.get(block)
        if known is not None:
            return known
        entries = self._decoder.header_table.dynamic_entries
        count, first = len(entries), entries[0] if entries else None
        try:
            fields = self._decoder.decode(block, raw=True)
        except HPACKError as error:
            raise ConnectionFault(Reason.compression_error, f"headers cannot be read: {error}") from None
        except Exception:  # noqa: BLE001 - whatever else a decoder of foreign bytes may raise ends this connection only
            raise ConnectionFault(Reason.compression_error, "headers cannot be read") from None
        head = read_head([(bytes(name), bytes(value)) for name, value in fields], self._find)
        if len(entries) != count or (entries[0] if entries else None) is not first:
            self._forget()
        elif block[0] & 0xE0 != _SIZE_UPDATE:
            self._keep(block, head)
        return head

    def _keep(self, block: bytes, head: Head) -> None:
        size = len(block) + head.size
        if size > _LARGEST_KEPT:
            return
        if len(self._known) >= _KEPT or self._known_bytes + size > _KEPT_BYTES:
            self._forget()
        self._known[block] = head
        self._known_bytes += size

    def _forget(self) -> None:
        self._known.clear()
        self._known_bytes = 0


def read_head(fields: list[tuple[bytes, bytes]], find: Callable[[str], Any]) -> Head:
    """Header fields as a call. A repeated name keeps its values joined by commas, as HTTP reads them."""
    pseudo: dict[bytes, bytes] = {}
    headers: dict[bytes, bytes] = {}
    malformed: str | None = None
    for name, value in fields:
        if name.startswith(b":"):
            if headers or name in pseudo:
                malformed = "pseudo-headers stand twice or after others"
            pseudo[name] = value
        elif not _NAME.match(name) or not _VALUE.match(value) or name in _OF_A_CONNECTION:
            malformed = f"header {name[:40]!r} is not allowed"
        else:
            headers[name] = headers[name] + b"," + value if name in headers else value
    path = pseudo.get(b":path", b"").decode("latin-1")
    if not malformed and not {b":method", b":scheme", b":path"} <= pseudo.keys() <= _REQUEST:
        malformed = "pseudo-headers are missing or unknown"
    status = 0
    if pseudo.get(b":method") != b"POST":
        status = 405
    elif not headers.get(b"content-type", b"").startswith(b"application/grpc"):
        status = 415
    timeout: float | None = None
    told = headers.get(b"grpc-timeout")
    if told is not None:
        found = _TIMEOUT.match(told)
        if found is None:
            malformed = malformed or "grpc-timeout is not a number and a unit"
        else:
            timeout = int(found[1]) * _UNITS[found[2]]
    method = None if malformed or status else find(path)
    size = sum(len(name) + len(value) + _FIELD_SIZE for name, value in fields)
    encoding = headers.get(b"grpc-encoding", b"identity")
    return Head(path, method, timeout, encoding, headers, malformed, status, size)


_REQUEST = frozenset((b":method", b":scheme", b":path", b":authority"))
