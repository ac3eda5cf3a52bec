"""Unpacks what joblib and people compress models with, and stops before a small file fills the memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import IO, Any

from fairway.core.errors import CorruptBundle, MissingExtra, UntrustedArtifact

MAX_BYTES = 16 * 2**30
SMALL_BYTES = 256 * 2**20
"""Below this, any ratio is fine: arrays of zeros compress a thousandfold."""
MAX_RATIO = 300
_CHUNK = 2**20

_PREFIXES = (
    ("gzip", b"\x1f\x8b"),
    ("bz2", b"BZh"),
    ("xz", b"\xfd7zXZ"),
    ("lzma", b"\x5d\x00"),
    ("lz4", b"\x04\x22\x4d\x18"),
)


def compression_of(data: bytes) -> str | None:
    """The compression a file begins with: gzip, bz2, xz, lzma, lz4, zlib, or None."""
    for name, prefix in _PREFIXES:
        if data.startswith(prefix):
            return name
    if data[:1] == b"\x78" and len(data) > 1 and (data[0] * 256 + data[1]) % 31 == 0:
        return "zlib"  # the header's own check: method and flags are a multiple of 31
    return None


def decompressed(data: bytes, source: str = "the file") -> bytes:
    """The bytes inside one layer of compression, or the bytes themselves when there is none.

    Raises `CorruptBundle` when they cannot be unpacked and `UntrustedArtifact` for a decompression bomb.
    """
    kind = compression_of(data)
    if kind is None:
        return data
    most = min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * len(data)))
    out = io.BytesIO()
    try:
        with _reader(kind, data) as stream:
            while chunk := stream.read(_CHUNK):
                out.write(chunk)
                if out.tell() > most:
                    raise UntrustedArtifact(
                        f"{source} is {len(data)} bytes of {kind} that unpack to more than {most}: refused.",
                        hint="If it is your own model, save it without compression.",
                    )
    except (OSError, EOFError, zlib.error, lzma.LZMAError, RuntimeError) as error:
        raise CorruptBundle(
            f"{source} is {kind}-compressed but cannot be unpacked ({error}).",
            hint="The file is truncated or altered: copy or save it again.",
        ) from error
    return out.getvalue()


def _reader(kind: str, data: bytes) -> IO[bytes] | Any:
    stream = io.BytesIO(data)
    if kind == "gzip":
        return gzip.GzipFile(fileobj=stream)
    if kind == "bz2":
        return bz2.BZ2File(stream)
    if kind in ("xz", "lzma"):
        return lzma.LZMAFile(stream)
    if kind == "zlib":
        return _ZlibReader(data)
    try:
        import lz4.frame  # type: ignore[import-not-found,unused-ignore]  # optional: joblib writes lz4 only with it
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "the file is lz4-compressed.", hint="Install the reader: pip install lz4"
        ) from error
    return lz4.frame.LZ4FrameFile(stream)


class _ZlibReader:
    """zlib has no file class of its own."""

    def __init__(self, data: bytes) -> None:
        self._decompressor = zlib.decompressobj()
        self._rest = data

    def read(self, size: int) -> bytes:
        if self._decompressor.eof:
            if self._decompressor.unused_data:
                raise OSError(f"{len(self._decompressor.unused_data)} bytes follow its end")
            return b""
        chunk = self._decompressor.decompress(self._rest, size)
        self._rest = self._decompressor.unconsumed_tail
        if not chunk and not self._decompressor.eof:
            raise EOFError("it breaks off")
        return chunk

    def __enter__(self) -> _ZlibReader:
        return self

    def __exit__(self, *_: object) -> None:
        pass
