"""Compressed bodies in and out: gzip, deflate and zstd (RFC 9110 section 8.4, RFC 8878, RFC 9659).

A body is unpacked up to the size limit and no further, so that a few kilobytes cannot become gigabytes of memory.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from fairway.core.errors import MalformedInput, PayloadTooLarge, UnsupportedContent
from fairway.serving.entrance import Headers

SMALLEST = 1024
"""Answers below this many bytes are sent as they are."""
_VARY = (b"vary", b"accept-encoding")
_CODINGS = "gzip, deflate and zstd"
_MOST_CODINGS = 3
_GZIP, _ZLIB = 31, 15  # zlib's window bits: what wraps the stream
_ZSTD_WINDOW_LOG = 23  # 8 MB: RFC 9659 lets a server refuse more
_QUALITY = re.compile(r"q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z", re.IGNORECASE)


class _Decompressor(Protocol):
    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def decompressed(body: bytes, headers: Headers, limit: int) -> bytes:
    """The body without its `Content-Encoding`; several codings are undone last first.

    Raises PayloadTooLarge naming the limit, MalformedInput for what is damaged or cut off, and UnsupportedContent
    for other codings.
    """
    header = headers.get(b"content-encoding")
    if header is None:
        return body
    codings = [name.strip().lower() for name in header.decode("latin-1").split(",")]
    if len(codings) > _MOST_CODINGS:
        raise UnsupportedContent(f"The body was compressed {len(codings)} times; {_MOST_CODINGS} are undone.")
    for coding in reversed(codings):
        body = _undo(coding, body, limit)
    return body


Pairs = tuple[tuple[bytes, bytes], ...]


def compressed(body: bytes, headers: Headers) -> tuple[bytes, Pairs]:
    """The body in the coding that `Accept-Encoding` likes best, and the headers that say so: none when it is small
    or nobody asked."""
    return compressed_for(headers.get(b"accept-encoding"), body)


def compressed_for(accepted: bytes | None, body: bytes) -> tuple[bytes, Pairs]:
    """As `compressed`, by the header's value."""
    if accepted is None or len(body) < SMALLEST:
        return body, ()
    coding = _preferred(accepted[:512])
    if coding is None:
        return body, (_VARY,)
    return _WAYS_OUT[coding](body), ((b"content-encoding", coding.encode()), _VARY)


def _undo(coding: str, body: bytes, limit: int) -> bytes:
    if coding in ("identity", ""):
        return body
    if coding in ("gzip", "x-gzip"):
        return _unpacked("gzip", lambda: zlib.decompressobj(_GZIP), body, limit)
    if coding == "deflate":
        # HTTP's deflate is zlib's format; a bare deflate stream, which some clients send, begins differently.
        wrapped = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
        return _unpacked("deflate", lambda: zlib.decompressobj(_ZLIB if wrapped else -_ZLIB), body, limit)
    if coding == "zstd":
        return _unpacked("zstd", _zstd_decompressor, body, limit)
    raise UnsupportedContent(
        f"The content encoding {coding[:40]!r} is not read here.", hint=f"Known are {_CODINGS}."
    )


def _unpacked(coding: str, begin: Callable[[], Any], body: bytes, limit: int) -> bytes:
    """Every member of a stream, up to `limit` bytes together."""
    parts: list[bytes] = []
    size = 0
    rest = body
    damaged: tuple[type[Exception], ...] = (_zstd().ZstdError,) if coding == "zstd" else (zlib.error,)
    while True:
        stream: _Decompressor = begin()
        try:
            part = stream.decompress(rest, limit - size + 1)
        except damaged as error:
            raise MalformedInput(f"The body is not {coding}: {error}.") from None
        size += len(part)
        if size > limit:
            raise PayloadTooLarge(
                f"The body is more than {limit} bytes once unpacked, which is the limit (limits.body_bytes).",
                hint="Send fewer rows a request.",
            )
        parts.append(part)
        if not stream.eof:
            raise MalformedInput(f"The {coding} body ends in the middle: {len(body)} bytes came.")
        rest = stream.unused_data
        if not rest:
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore] # Python 3.14's own
    except ImportError:
        from backports import zstd  # type: ignore[no-redef,unused-ignore] # the same, for older Pythons; only when it is used
    return zstd


def _zstd_decompressor() -> _Decompressor:
    zstd = _zstd()
    decompressor: _Decompressor = zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    )
    return decompressor


def _to_gzip(body: bytes) -> bytes:
    compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return compressor.compress(body) + compressor.flush()


def _to_zstd(body: bytes) -> bytes:
    packed: bytes = _zstd().compress(body, 1)
    return packed


_WAYS_OUT: dict[str, Callable[[bytes], bytes]] = {
    "zstd": _to_zstd,
    "gzip": _to_gzip,
    "deflate": lambda body: zlib.compress(body, 1),
}
"""Best first: where the caller likes several alike, zstd is the quickest for its size."""


@lru_cache(maxsize=256)
def _preferred(accepted: bytes) -> str | None:
    """The coding with the highest quality above 0; None for none (RFC 9110 section 12.5.3)."""
    qualities: dict[str, float] = {}
    for item in accepted.decode("latin-1").lower().split(","):
        name, _, options = item.partition(";")
        found = _QUALITY.match(options.strip()) if options.strip() else None
        qualities[name.strip()] = 1.0 if not options.strip() else float(found[1]) if found else 0.0
    others = qualities.get("*", 0.0)
    offers = {name: qualities.get(name, others) for name in _WAYS_OUT}
    offers["gzip"] = max(offers["gzip"], qualities.get("x-gzip", 0.0))
    best = max(offers, key=lambda name: offers[name])
    plain = qualities.get("identity", 0.0)
    return best if offers[best] > 0 and offers[best] >= plain else None
