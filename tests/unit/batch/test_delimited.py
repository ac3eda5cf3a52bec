"""CSV in chunks: cut where records end, read quickly exactly as slowly."""

import csv
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairway.batch import delimited
from fairway.batch.delimited import Header, Transcoded, cut_records, parse, read_header
from fairway.batch.score import Parsed
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import MalformedInput
from fairway.inference.rows import from_csv
from fairway.inference.validate import Validator

CONTRACT = Contract(
    inputs=(
        Field(name="x", dtype=DType.float64, nullable=True),
        Field(name="n", dtype=DType.int64, nullable=True),
        Field(name="yes", dtype=DType.bool, nullable=True),
        Field(name="word", dtype=DType.string, nullable=True),
        Field(name="at", dtype=DType.timestamp, nullable=True),
    ),
    outputs=(),
)
NAMES = ("id", "x", "n", "yes", "word", "at")
HEADER = Header(NAMES, ",")
CELLS = st.sampled_from(
    ["", "1", "-2.5", " 3 ", "+4", "0x10", "nan(1)", "NaN", "NA", "null", "1e400", "inf", "1_0", "٣", "true", "FALSE", "a,b",
     'say "hi"', "two\nlines", "2026-01-31", "2026-01-31T12:00:00Z", "9007199254740993", "99999999999999999999", "1.0", "ä", "yes"]
)  # fmt: skip


def written(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def shown(contract: Contract, inputs: Any) -> Any:
    if not max((len(values) for values in inputs.values()), default=0):
        return "nothing"
    split = Validator(contract).split(inputs, lambda *_: None)
    columns = split.columns
    return (
        split.rows.tolist(),
        {(p.row, p.field) for p in split.problems},
        columns and {name: [str(v) for v in values.tolist()] for name, values in columns.items()},
    )


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.lists(CELLS, min_size=6, max_size=6), min_size=1, max_size=6))
@example(rows=[["007", "0x10", "0x10", "1", "NA", ""]])
def test_a_chunk_says_what_the_servers_reader_says(rows: list[list[str]]) -> None:
    parsed = parse(written(rows), HEADER, CONTRACT, ["id", "x"])
    online = from_csv(written([list(NAMES), *rows]), CONTRACT)
    assert parsed.total == len(rows)
    assert parsed.places is None or parsed.places.tolist() == list(range(len(rows)))
    online = {name: values for name, values in online.items() if name != "id"}
    assert shown(CONTRACT, parsed.inputs) == shown(CONTRACT, online)
    assert parsed.kept.column("id").to_pylist() == [row[0] for row in rows]
    assert parsed.kept.column("x").to_pylist() == [row[1] for row in rows]


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=3), max_size=12),
    size=st.integers(1, 60),
    at=st.integers(0, 12),
)
def test_cuts_lose_nothing_end_where_records_end_and_are_the_same_from_any_of_them_on(
    rows: list[list[str]], size: int, at: int
) -> None:
    data = written(rows)
    cuts = list(cut_records(io.BytesIO(data), 0, size))
    assert b"".join(cut.data for cut in cuts) == data
    records = [list(csv.reader(io.StringIO(cut.data.decode(), newline=""))) for cut in cuts]
    assert [record for part in records for record in part if record] == [row for row in rows if row != [""]]
    if at < len(cuts):
        begin = cuts[at].end
        rest = list(cut_records(io.BytesIO(data[begin:]), begin, size))
        assert rest == cuts[at + 1 :]


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MOST_RECORD_BYTES", 100)
    with pytest.raises(MalformedInput, match="never ends"):
        list(cut_records(io.BytesIO(b'a\n"' + b"b\n" * 1000), 0, 10))


def test_a_stray_quote_within_a_cell_opens_nothing() -> None:
    data = b'1,5" pipe\n' * 9
    assert len(list(cut_records(io.BytesIO(data), 0, 25))) == 5


def one_by_one(data: bytes, names: tuple[str, ...] = ("x", "word")) -> Parsed:
    contract = Contract(inputs=tuple(f for f in CONTRACT.inputs if f.name in names), outputs=())
    return parse(data, Header(names, ","), contract, [])


@pytest.mark.parametrize(
    ("data", "rejects"),
    [
        (b"1,a\n2\n3,c\n", [(1, "has 1 values, the header 2", None)]),
        (b"1,a\n\n3,b,c\n", [(1, "has 3 values, the header 2", None)]),
        (b"1,a\n2,\xff\n3,c\n", [(1, "is not UTF-8", "word")]),
        (b'1,a\n2,"b"x\n', [(1, "cannot be read as CSV: ',' expected after '\"'", None)]),
    ],
)
def test_a_record_that_cannot_be_read_leaves_the_others(data: bytes, rejects: list[Any]) -> None:
    parsed = one_by_one(data)
    assert [(r.row, r.reason, r.field) for r in parsed.rejects] == rejects
    assert parsed.places is not None
    assert len(parsed.places) + 1 == parsed.total
    assert len(parsed.kept) == len(parsed.places)


def test_the_delimiter_is_the_one_by_which_fields_are_found() -> None:
    header, end = read_header(io.BytesIO(b"\xef\xbb\xbfid;x;word\n1;2;3\n"), CONTRACT)
    assert header == Header(("id", "x", "word"), ";")
    assert end == 13
    assert read_header(io.BytesIO(b"a~x"), CONTRACT, "~")[0].names == ("a", "x")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"x,x\n", "names repeat: x"),
        (b"\xff\xfe\n", "not UTF-8.*--encoding"),
    ],
)
def test_a_header_that_cannot_be_used(data: bytes, why: str) -> None:
    with pytest.raises(MalformedInput, match=why):
        read_header(io.BytesIO(data), CONTRACT)


def test_a_header_may_have_line_breaks_in_a_name() -> None:
    header, end = read_header(io.BytesIO(b'"a\nb",x\n1,2\n'), CONTRACT)
    assert header.names == ("a\nb", "x")
    assert end == 8


def test_another_encoding_is_read_as_utf_8() -> None:
    text = "wört,ß\n" * 1000
    file = Transcoded(io.BytesIO(text.encode("utf-16")), "utf-16")
    assert file.read(5) + file.read(-1) == text.encode()
    with pytest.raises(MalformedInput, match="not ascii"):
        Transcoded(io.BytesIO(b"\xff"), "ascii").read()
    with pytest.raises(MalformedInput, match="no encoding 'klingon'"):
        Transcoded(io.BytesIO(b""), "klingon")


def test_floats_come_as_arrays() -> None:
    contract = Contract(
        inputs=(Field(name="a", dtype=DType.float64), Field(name="b", dtype=DType.float64)), outputs=()
    )
    parsed = parse(b"1,2\n,4\n", Header(("a", "b"), ","), contract, [])
    assert all(isinstance(values, np.ndarray) for values in parsed.inputs.values())
    assert len(parsed.kept) == 2


def test_a_cell_larger_than_the_server_takes_is_a_reject() -> None:
    parsed = one_by_one(f"1,{'x' * 3_000_000}\n2,b\n".encode())
    assert [(r.row, "field larger than field limit" in r.reason) for r in parsed.rejects] == [(0, True)]
    assert parsed.inputs["word"] == ["b"]
