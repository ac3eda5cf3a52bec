from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable

import pytest

from fairway.core.errors import CorruptBundle, MissingExtra, UntrustedArtifact
from fairway.security import compression
from fairway.security.compression import compression_of, decompressed

WAYS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_there_and_back(way: str) -> None:
    for data in (b"", b"x", bytes(range(256)) * 40_000):
        packed = WAYS[way](data)
        assert compression_of(packed) == way
        assert decompressed(packed) == data


@pytest.mark.parametrize("level", range(10))
def test_zlib_of_every_level(level: int) -> None:
    assert decompressed(zlib.compress(b"some model" * 100, level)) == b"some model" * 100


def test_plain_bytes_stay() -> None:
    for data in (b"", b"\x80\x04N.", b"x", b"xyz", b"]\x94.", b"BZ"):
        assert decompressed(data) == data


@pytest.mark.parametrize("way", list(WAYS))
def test_bombs_stop_early(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "SMALL_BYTES", 2**20)
    packed = WAYS[way](bytes(16 * 2**20))
    monkeypatch.setattr(compression, "MAX_RATIO", 50)
    with pytest.raises(UntrustedArtifact, match="unpack to more than"):
        decompressed(packed)


@pytest.mark.parametrize("way", list(WAYS))
def test_cut_short(way: str) -> None:
    packed = WAYS[way](bytes(range(256)) * 100)
    with pytest.raises(CorruptBundle):
        decompressed(packed[: len(packed) // 2])


def test_more_behind_the_end() -> None:
    with pytest.raises(CorruptBundle, match="follow its end"):
        decompressed(zlib.compress(b"model") + b"more")
    with pytest.raises(CorruptBundle):
        decompressed(gzip.compress(b"model") + b"more")


def test_lz4_without_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4", None)
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    with pytest.raises(MissingExtra, match="pip install lz4"):
        decompressed(b"\x04\x22\x4d\x18rest")
