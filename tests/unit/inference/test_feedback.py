"""Feedback as it is sent: every wrong row told, the others taken, a block in memory at a time."""

import json
import math
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import MalformedInput, UnsupportedContent
from fairway.core.label import Label
from fairway.inference.feedback import BLOCK_ROWS, Block, from_cells, read_labels, told

NOW = 1_769_860_800.0
"""2026-01-31T12:00:00Z."""


def resolve(model: str, key: str) -> str:
    if model == "unknown":
        raise ValueError("no model 'unknown' is served here.")
    return model or "m"


def read(body: Any, kind: str = "json") -> Block:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = list(read_labels(kind, content, resolve, NOW))
    return Block(
        sum(b.rows for b in found), [x for b in found for x in b.labels], [w for b in found for w in b.wrong]
    )


MICRO = int(NOW * 1e6)


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"request_id": "r", "label": 1}, Label("m", b"1", MICRO, "r")),
        ({"request_id": "r", "label": "x", "model": "n"}, Label("n", b'"x"', MICRO, "r")),
        (
            {"request_id": "r", "row": 3, "label": 0.5, "time": 12.5},
            Label("m", b"0.5", 12_500_000, "r", row=3),
        ),
        (
            {"request_id": "r", "label": True, "time": "1970-01-01T00:00:01Z"},
            Label("m", b"true", 1_000_000, "r"),
        ),
        (
            {"request_id": "r", "label": 1, "time": "1970-01-01T02:00:01+02:00"},
            Label("m", b"1", 1_000_000, "r"),
        ),
        ({"request_id": "r", "label": 1, "time": "1970-01-01"}, Label("m", b"1", 0, "r")),
        ({"key": "k", "label": [1, 2]}, Label("m", b"[1, 2]", MICRO, key="k")),
        ({"request_id": "r", "label": {"a": 1}}, Label("m", b'{"a": 1}', MICRO, "r")),
    ],
)
def test_one_label(row: dict[str, Any], label: Label) -> None:
    assert read(row) == Block(1, [label], [])
    assert read([row]).labels == [label]
    assert read(json.dumps(row).encode() + b"\n", "jsonlines").labels == [label]


def test_labels_of_all_rows_of_a_request() -> None:
    found = read({"request_id": "r", "labels": [1, 0, "x"]}).labels
    assert [(one.row, one.value) for one in found] == [(0, b"1"), (1, b"0"), (2, b'"x"')]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"label": 1}, "either request_id or key"),
        ({"request_id": "r", "key": "k", "label": 1}, "either request_id or key"),
        ({"request_id": "", "label": 1}, "either request_id or key"),
        ({"request_id": "r"}, "either label or labels"),
        ({"request_id": "r", "label": 1, "labels": [1]}, "either label or labels"),
        ({"request_id": "r", "label": None}, "null"),
        ({"request_id": "r", "labels": [1, None]}, "null"),
        ({"request_id": "r", "label": "x" * 70_000}, "at most 65536"),
        ({"request_id": "r" * 513, "label": 1}, "at most 512"),
        ({"request_id": "r", "label": 1, "row": -1}, "row is the place"),
        ({"request_id": "r", "label": 1, "row": 2**31}, "row is the place"),
        ({"key": "k", "label": 1, "row": 1}, "row is the place"),
        ({"request_id": "r", "labels": [1], "row": 1}, "row is the place"),
        ({"key": "k", "labels": [1]}, "a key has one label"),
        ({"request_id": 7, "label": 1}, "Expected `str`"),
        ({"request_id": "r", "label": 1, "wrong": 2}, "unknown field `wrong`"),
        ({"request_id": "r", "label": 1, "time": "yesterday"}, "is no time"),
        ({"request_id": "r", "label": 1, "time": 1e12}, "milliseconds"),
        ({"request_id": "r", "label": 1, "time": NOW + 100_000}, "ahead of this machine's clock"),
        ({"request_id": "r", "label": 1, "model": "unknown"}, "no model 'unknown'"),
        (7, "Expected `object`"),
    ],
)
def test_what_is_wrong_is_told_and_the_others_are_taken(row: Any, reason: str) -> None:
    good = {"request_id": "good", "label": 1}
    found = read([good, row, good])
    assert (found.rows, len(found.labels)) == (3, 2)
    [wrong] = found.wrong
    assert wrong.row == 1
    assert reason in wrong.reason


def test_lines_that_cannot_be_read() -> None:
    found = read(
        b'{"request_id": "r", "label": 1}\nnot json\n\n{"request_id": "\xff", "label": 1}\n', "jsonlines"
    )
    assert (found.rows, len(found.labels), [wrong.row for wrong in found.wrong]) == (3, 1, [1, 2])


def test_csv() -> None:
    body = (
        b"\xef\xbb\xbfrequest_id,label,time,row,key\r\n"
        b"r1,1,,,\r\nr2,0.5,1970-01-01T00:00:01Z,2,\r\nr3,true,7.5,,\r\n\r\n"
        b'r4,"a ""b"", c",,,\r\n,spam,,,k\r\nr5,007,,,\r\nr6,,,,\r\nr7,1\r\nr8,1,,x,\r\n'
    )
    found = read(body, "csv")
    assert [(x.request_id or x.key, x.value, x.time, x.row) for x in found.labels] == [
        ("r1", b"1", MICRO, 0),
        ("r2", b"0.5", 1_000_000, 2),
        ("r3", b"true", 7_500_000, 0),
        ("r4", b'"a \\"b\\", c"', MICRO, 0),
        ("k", b'"spam"', MICRO, 0),
        ("r5", b'"007"', MICRO, 0),
    ]
    assert [(wrong.row, wrong.reason[:20]) for wrong in found.wrong] == [
        (6, "it needs either labe"),
        (7, "it has 2 cells; the "),
        (8, "row is 'x', which is"),
    ]


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", "csv", "these columns are no labels: none"),
        (b"id,label\n", "csv", "Columns are request_id, key"),
        (b"request_id\n", "csv", "needed are label"),
        (b"request_id,label\n\xff\xff,1\n", "csv", "line 1 of the CSV"),
        (b'request_id,label\n"a,1\n', "csv", "cannot be read"),
        (b"", "json", "not a label or a list"),
        (b"[1, 2", "json", "not a label or a list"),
        (b"nonsense", "json", "not a label or a list"),
    ],
)
def test_bodies_that_cannot_be_read_at_all(body: bytes, kind: str, message: str) -> None:
    with pytest.raises(MalformedInput, match=message):
        read(body, kind)


def test_other_forms_are_refused() -> None:
    with pytest.raises(UnsupportedContent, match="text/csv"):
        read(b"", "npy")


def test_nothing_is_no_label() -> None:
    assert read([]) == Block(0, [], [])
    assert read(b"", "jsonlines") == Block(0, [], [])


def test_a_million_labels_are_read_in_bounded_memory() -> None:
    """In blocks: much less than the labels would take all at once."""
    body = b"request_id,label\n" + b"".join(b"request-%07d,%d\n" % (i, i % 2) for i in range(200_000))
    tracemalloc.start()
    rows = 0
    for block in read_labels("csv", body, resolve, NOW):
        assert len(block.labels) <= BLOCK_ROWS
        rows += block.rows
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 200_000
    assert peak < 12 * 2**20


@given(
    st.fixed_dictionaries(
        {"request_id": st.text(min_size=1, max_size=20), "label": st.integers() | st.booleans() | st.text()},
        optional={
            "row": st.integers(0, 100),
            "time": st.floats(0, NOW),
            "model": st.sampled_from(["m", "n"]),
        },
    )
)
def test_a_row_of_a_table_goes_over_the_wire_as_it_is(cells: dict[str, Any]) -> None:
    row = from_cells(dict(cells))
    assert not isinstance(row, str)
    there = read(msgspec.json.encode(told(row)))
    here = read(cells)
    if there.labels and here.labels and not isinstance(cells["label"], str):
        assert there == here


@pytest.mark.parametrize("label", [math.nan, math.inf, "nan", " NaN", "-inf"])
def test_cells_where_a_number_is_none_are_no_labels(label: Any) -> None:
    assert from_cells({"request_id": "r", "label": label}) == "the label is not a finite number."


def test_a_number_beyond_all_is_no_label() -> None:
    block = read(b'[{"request_id": "r", "label": 1e999}, {"request_id": "r", "label": -1e300}]')
    assert [label.value for label in block.labels] == [b"-1e300"]
    assert [wrong.reason for wrong in block.wrong] == ["the label is not a finite number."]


@pytest.mark.parametrize("row", ["x", "1.5", 1.5, math.nan, math.inf, "9" * 5000])
def test_a_place_that_is_none_is_said(row: Any) -> None:
    said = from_cells({"request_id": "r", "label": 1, "row": row})
    assert isinstance(said, str)
    assert "is no whole number" in said
    assert len(said) < 100
    taken = from_cells({"request_id": "r", "label": 1, "row": 2.0})
    assert not isinstance(taken, str)
    assert taken.row == 2
