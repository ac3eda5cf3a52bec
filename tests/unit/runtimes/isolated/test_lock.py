"""Locks: one text for the same packages, and nothing but packages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import CorruptBundle
from fairway.runtimes.isolated.lock import Lock, LockedPackage, make_lock, read_lock

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,8}[a-z0-9]", fullmatch=True)
HASHES = st.lists(
    st.binary(min_size=32, max_size=32).map(lambda b: f"sha256:{b.hex()}"), min_size=1, max_size=3
)
PACKAGES = st.lists(
    st.builds(
        LockedPackage,
        NAMES,
        st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", fullmatch=True),
        HASHES.map(tuple),
    ),
    max_size=5,
    unique_by=lambda package: package.name.lower().replace("_", "-").replace(".", "-"),
)
HASH = "--hash=sha256:" + "0" * 64


@given(PACKAGES, st.randoms())
def test_a_lock_is_read_as_it_was_written_in_whatever_order_it_was_made(
    packages: list[LockedPackage], random: object
) -> None:
    names = [make_lock("3.12", [package]).packages[0].name for package in packages]
    if len(set(names)) < len(names):
        return
    lock = make_lock("3.12", packages)
    assert read_lock(lock.text.encode(), "x") == lock
    shuffled = packages[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert make_lock("3.12", shuffled).digest == lock.digest


@pytest.mark.parametrize(
    "line",
    [
        f"numpy>=1.26 {HASH}",
        "numpy==1.26.4",
        f"numpy @ https://example.org/numpy.whl {HASH}",
        "--index-url https://example.org/simple",
        "--extra-index-url=https://example.org/simple",
        "-r other.txt",
        "-e .",
        "./numpy.whl",
        f"numpy==1.26.4 {HASH} --global-option=x",
        "numpy==1.26.4 --hash=md5:0",
        f"numpy==1.26.4 {HASH}\nNumPy==1.26.4 {HASH}",
    ],
)
def test_anything_else_is_refused(line: str) -> None:
    with pytest.raises(CorruptBundle):
        read_lock(f"# python 3.12\n{line}\n".encode(), "the lock")


@pytest.mark.parametrize("content", [b"", b"numpy==1\n", b"# python 2.7\n", b"\xff", b"# python 3.12; rm\n"])
def test_it_begins_with_its_python(content: bytes) -> None:
    with pytest.raises(CorruptBundle, match="is not a lock"):
        read_lock(content, "the lock")


def test_the_digest_depends_on_the_python() -> None:
    assert Lock("3.11", ()).digest != Lock("3.12", ()).digest


def test_it_is_described_in_a_line() -> None:
    lock = make_lock("3.12", [LockedPackage(f"p{i}", "1", ("sha256:" + "0" * 64,)) for i in range(10)])
    assert lock.described(2) == "Python 3.12 with p0 1, p1 1 and 8 more"
