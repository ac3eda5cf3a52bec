"""What a run is told about."""

from fairway.batch.ledger import Part
from fairway.batch.report import counts, reason_kind
from fairway.batch.source import Position


def part(number: int, **options: dict[str, int]) -> Part:
    return Part(
        file=0, part=number, first=0, end=Position(), scored=0, rejects=0, name="", bytes=0, sha256="", **options
    )  # fmt: skip


def test_reasons_are_counted_without_their_values() -> None:
    assert reason_kind("a", "expected a number, got 'x y'") == reason_kind(
        "a", 'expected a number, got "it\'s"'
    )
    assert reason_kind("a", "-3.5e2 is outside 0.0 to nan") == "a: ... is outside ... to ..."
    assert reason_kind(None, "is not JSON") == "is not JSON"
    assert reason_kind("a", "is not UTF-8") == "a: is not UTF-8"
    assert counts([part(0, rejected={"x": 1}), part(1, rejected={"x": 1, "y": 5})], "rejected") == {
        "y": 5,
        "x": 2,
    }
