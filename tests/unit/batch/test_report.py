"""What a run is told about."""

import numpy as np

from fairway.batch.ledger import Part
from fairway.batch.report import add_seen, counts, reason_kind, see, summarise
from fairway.batch.source import Position
from fairway.core.contract import Contract, DType, Field

CONTRACT = Contract(
    inputs=(
        Field(name="a", dtype=DType.float64, quantiles=(0, 1, 2, 3, 4, 5, 6), missing_rate=0.1),
        Field(name="b", dtype=DType.float64),
    ),
    outputs=(),
)


def part(number: int, seen: list[list[float]], **options: dict[str, int]) -> Part:
    return Part(
        file=0, part=number, first=0, end=Position(), scored=0, rejects=0, name="", bytes=0, sha256="", seen=seen, **options
    )  # fmt: skip


def test_reasons_are_counted_without_their_values() -> None:
    assert reason_kind("a", "expected a number, got 'x y'") == reason_kind(
        "a", 'expected a number, got "it\'s"'
    )
    assert reason_kind("a", "-3.5e2 is outside 0.0 to nan") == "a: ... is outside ... to ..."
    assert reason_kind(None, "is not JSON") == "is not JSON"
    assert counts([part(0, [], rejected={"x": 1}), part(1, [], rejected={"x": 1, "y": 5})], "rejected") == {
        "y": 5,
        "x": 2,
    }


def test_sums_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(size=(100, 2)) * 3
    values[3, 0] = np.nan
    values[5, 1] = np.inf
    whole = see(CONTRACT, values)
    halves = add_seen(see(CONTRACT, values[:50]), see(CONTRACT, values[50:]))
    assert np.allclose(np.array(whole), np.array(halves))
    assert add_seen([], whole) == whole


def test_columns_are_shown_beside_the_training_data() -> None:
    values = np.array([[1.0, 7.0], [np.nan, 7.0], [9.0, 7.0], [3.0, 7.0]])
    a, b = summarise(CONTRACT, [part(0, see(CONTRACT, values[:2])), part(1, see(CONTRACT, values[2:]))])
    assert (a.rows, a.nulls, a.training_nulls, a.minimum, a.maximum) == (4, 0.25, 0.1, 1.0, 9.0)
    assert a.outside == 1 / 3
    assert (b.mean, b.outside) == (7.0, None)
    (nothing, _) = summarise(CONTRACT, [part(0, see(CONTRACT, values[1:2]))])
    assert (nothing.mean, nothing.minimum) == (None, None)
    assert summarise(CONTRACT, []) == ()
