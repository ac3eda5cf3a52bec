"""Compressed messages: `grpc-encoding` gzip and deflate."""

from __future__ import annotations

from fairway.core.errors import MalformedInput, NotSupported
from fairway.serving.compression import decompressed


def unpack(message: bytes, encoding: bytes, limit: int) -> bytes:
    """At most `limit` bytes. Raises NotSupported, MalformedInput or PayloadTooLarge."""
    if encoding == b"identity":
        raise MalformedInput("The message says that it is compressed, and grpc-encoding says that it is not.")
    if encoding not in (b"gzip", b"deflate"):
        raise NotSupported(
            f"grpc-encoding {encoding.decode('latin-1')[:40]!r} is not known here.",
            hint="Use gzip or deflate.",
        )
    return decompressed(message, {b"content-encoding": encoding}, limit)
