"""HTTP/2 frames (RFC 9113, section 4): the numbers, and bytes for those that a gRPC server sends."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD: Final = struct.Struct(">BHBBI")
"""High byte and low two bytes of the length, type, flags, stream."""

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

DEFAULT_WINDOW: Final = 65_535
LARGEST_WINDOW: Final = 2**31 - 1
DEFAULT_FRAME: Final = 16_384
LARGEST_FRAME: Final = 2**24 - 1


class Setting(IntEnum):
    header_table_size = 1
    enable_push = 2
    max_concurrent_streams = 3
    initial_window_size = 4
    max_frame_size = 5
    max_header_list_size = 6


class Reason(IntEnum):
    """Error codes of RST_STREAM and GOAWAY (RFC 9113, section 7)."""

    no_error = 0
    protocol_error = 1
    internal_error = 2
    flow_control_error = 3
    settings_timeout = 4
    stream_closed = 5
    frame_size_error = 6
    refused_stream = 7
    cancel = 8
    compression_error = 9
    enhance_your_calm = 11


class ConnectionFault(Exception):
    """The peer broke HTTP/2 in a way that ends the connection."""

    def __init__(self, reason: Reason, what: str) -> None:
        super().__init__(what)
        self.reason = reason


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return FRAME_HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", name, value) for name, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    if len(payload) % 6:
        raise ConnectionFault(Reason.frame_size_error, "SETTINGS is not a list of six-byte entries")
    return list(struct.iter_unpack(">HI", payload))


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def reset(stream: int, reason: Reason) -> bytes:
    return frame(RST_STREAM, 0, stream, int(reason).to_bytes(4, "big"))


def goaway(last_stream: int, reason: Reason, why: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream, reason) + why.encode()[:200])


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of a DATA or HEADERS frame without padding and priority."""
    if flags & PADDED:
        if not payload or payload[0] >= len(payload):
            raise ConnectionFault(Reason.protocol_error, "padding is longer than its frame")
        payload = payload[1 : len(payload) - payload[0]]
    return payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field that changes no compression state (RFC 7541, section 6.2.2); no Huffman coding."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    size -= 127
    head = bytearray((127,))
    while size >= 128:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + text
