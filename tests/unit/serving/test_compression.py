"""Compressed bodies: what was packed comes out, damage is told, and bombs stay small."""

import gzip
import zlib

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import MalformedInput, PayloadTooLarge, UnsupportedContent
from fairway.serving.compression import SMALLEST, compressed, decompressed

LIMIT = 100_000


def bare_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    return stream.compress(body) + stream.flush()


PACK = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate, bare": bare_deflate,
    "zstd": zstd.compress,
}


def unpack(body: bytes, coding: str, limit: int = LIMIT) -> bytes:
    return decompressed(body, {b"content-encoding": coding.encode("latin-1")}, limit)


@given(st.binary(max_size=3000), st.sampled_from(sorted(PACK)))
def test_what_was_packed_comes_out(body: bytes, name: str) -> None:
    assert unpack(PACK[name](body), name.partition(",")[0]) == body


def test_several_members_and_several_codings() -> None:
    assert unpack(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip") == b"one two"
    assert unpack(zstd.compress(b"one ") + zstd.compress(b"two"), "zstd") == b"one two"
    assert unpack(zstd.compress(gzip.compress(b"x")), "GZIP , zstd") == b"x"
    assert unpack(b"x", "identity") == b"x"
    assert decompressed(b"x", {}, 0) == b"x"


@pytest.mark.parametrize("name", sorted(PACK))
def test_a_bomb_is_refused_before_it_is_unpacked(name: str) -> None:
    bomb = PACK[name](bytes(50_000_000))
    with pytest.raises(PayloadTooLarge, match=r"more than 100000 bytes once unpacked.*limits\.body_bytes"):
        unpack(bomb, name.partition(",")[0])


def test_the_limit_itself_is_allowed() -> None:
    for name, pack in PACK.items():
        assert len(unpack(pack(bytes(LIMIT)), name.partition(",")[0])) == LIMIT
    with pytest.raises(PayloadTooLarge):
        unpack(gzip.compress(bytes(LIMIT)) + gzip.compress(b"x"), "gzip")
    with pytest.raises(PayloadTooLarge):
        unpack(gzip.compress(gzip.compress(bytes(LIMIT + 1))), "gzip, gzip")


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["gzip", "deflate", "zstd"]), st.data())
def test_cut_off_or_damaged_is_told(body: bytes, name: str, data: st.DataObject) -> None:
    packed = PACK[name](body)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(MalformedInput):
        unpack(packed[:cut], name)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "zstd"]))
def test_any_bytes_are_unpacked_or_refused(body: bytes, name: str) -> None:
    try:
        unpack(body, name)
    except (MalformedInput, PayloadTooLarge):
        pass


def test_a_window_larger_than_http_allows_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.compression_level: 3}
    compressor = zstd.ZstdCompressor(options=options)
    packed = compressor.compress(b"x" * 10) + compressor.flush()
    with pytest.raises(MalformedInput, match="zstd"):
        unpack(packed, "zstd")


@pytest.mark.parametrize("coding", ["br", "compress", "exi", "gzip2", "\xff"])
def test_other_codings_name_those_that_are_known(coding: str) -> None:
    with pytest.raises(UnsupportedContent, match="gzip, deflate and zstd"):
        unpack(b"x", coding)
    with pytest.raises(UnsupportedContent, match="3 are undone"):
        unpack(b"x", "gzip,gzip,gzip,gzip")


LARGE = b"0123456789" * 200


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (b"gzip", b"gzip"),
        (b"gzip, deflate, br, zstd", b"zstd"),
        (b"gzip;q=1.0, zstd;q=0.5", b"gzip"),
        (b"deflate", b"deflate"),
        (b"*", b"zstd"),
        (b"zstd;q=0, *", b"gzip"),
        (b"x-gzip", b"gzip"),
        (b"GZIP;Q=0.3", b"gzip"),
        (b"br", None),
        (b"identity", None),
        (b"", None),
        (b"gzip;q=0", None),
        (b"gzip;q=nonsense", None),
        (b"gzip;q=0.5, identity;q=0.9", None),
    ],
)
def test_the_coding_that_the_caller_likes_best(accepted: bytes, coding: bytes | None) -> None:
    body, headers = compressed(LARGE, {b"accept-encoding": accepted})
    told = dict(headers)
    assert told[b"vary"] == b"accept-encoding"
    assert told.get(b"content-encoding") == coding
    if coding is None:
        assert body is LARGE
    else:
        assert decompressed(body, {b"content-encoding": coding}, LIMIT) == LARGE


def test_small_answers_go_out_as_they_are() -> None:
    small = b"x" * (SMALLEST - 1)
    assert compressed(small, {b"accept-encoding": b"gzip"}) == (small, ())
    assert compressed(LARGE, {}) == (LARGE, ())
