"""Compressed messages: `grpc-encoding` gzip and deflate."""

from __future__ import annotations

import zlib

from fairway.core.errors import MalformedInput, NotSupported, PayloadTooLarge

_WINDOW = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


def unpack(message: bytes, encoding: bytes, limit: int) -> bytes:
    """At most `limit` bytes. Raises NotSupported, MalformedInput or PayloadTooLarge."""
    if encoding == b"identity":
        raise MalformedInput("The message says that it is compressed, and grpc-encoding says that it is not.")
    window = _WINDOW.get(encoding)
    if window is None:
        raise NotSupported(
            f"grpc-encoding {encoding.decode('latin-1')[:40]!r} is not known here.", hint="Use gzip or deflate."
        )
    unpacker = zlib.decompressobj(window)
    try:
        plain = unpacker.decompress(message, limit + 1)
    except zlib.error as error:
        raise MalformedInput(f"The message cannot be unpacked: {error}.") from None
    if len(plain) > limit:
        raise PayloadTooLarge(
            f"The message has more than {limit} bytes once unpacked, the limit (limits.body_bytes).",
            hint="Send fewer rows a request.",
        )
    if not unpacker.eof:
        raise MalformedInput("The compressed message was cut short.")
    return plain
