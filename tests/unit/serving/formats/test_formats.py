"""Rows in every form are the same rows; what is no such form is refused, and never executed."""

import csv
import io
import json
import pickle
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.columns import Columns
from fairway.core.conform import nulls_of
from fairway.core.contract import Action, Contract, DType, Field, Output, Rules
from fairway.core.errors import InvalidInput, MalformedInput, NotAcceptable, UnsupportedContent
from fairway.inference.validate import Validator
from fairway.serving import formats
from fairway.serving.formats import arrow, kind_of, negotiate, read_rows, write_outputs

LETTERS = st.text('abc é,"\n😀', min_size=1, max_size=4).filter(lambda text: text.strip() == text)
ARROW = {
    DType.bool: pa.bool_(), DType.int8: pa.int8(), DType.int16: pa.int16(), DType.int32: pa.int32(),
    DType.int64: pa.int64(), DType.uint8: pa.uint8(), DType.uint16: pa.uint16(), DType.uint32: pa.uint32(),
    DType.uint64: pa.uint64(), DType.float16: pa.float16(), DType.float32: pa.float32(),
    DType.float64: pa.float64(), DType.string: pa.string(), DType.timestamp: pa.timestamp("us", "UTC"),
}  # fmt: skip


def value(field: Field) -> st.SearchStrategy[Any]:
    """A value of the field as Python has it."""
    dtype = field.dtype
    if dtype is DType.string:
        found: st.SearchStrategy[Any] = LETTERS.filter(
            lambda text: text not in ("nan", "NaN", "None", "null")
        )
    elif dtype is DType.bool:
        found = st.booleans()
    elif dtype is DType.timestamp:
        found = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))
    elif dtype.is_integer:
        limits = np.iinfo(dtype.value)
        found = st.integers(max(int(limits.min), -(2**53) + 1), min(int(limits.max), 2**53 - 1))
    else:
        width = np.dtype(dtype.value).itemsize * 8
        found = st.floats(allow_nan=False, allow_infinity=False, width=width)  # type: ignore[arg-type]
    return found | st.none() if field.nullable else found


@st.composite
def tables(draw: st.DrawFn) -> tuple[Contract, list[dict[str, Any]]]:
    fields = []
    for i in range(draw(st.integers(1, 4))):
        nullable = draw(st.booleans())
        rules = Rules(on_null=Action.warn) if nullable else Rules()
        dtype = draw(st.sampled_from(list(DType)))
        fields.append(
            Field(name=f"f{i}", dtype=dtype, nullable=nullable, missing_rate=0.5 * nullable, rules=rules)
        )
    contract = Contract(inputs=tuple(fields), outputs=())
    row = st.fixed_dictionaries({field.name: value(field) for field in fields})
    return contract, draw(st.lists(row, min_size=1, max_size=6))


def wire(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def written(
    kind: str, contract: Contract, rows: list[dict[str, Any]], draw: st.DataObject | None = None
) -> bytes:
    """The rows as somebody's tools would write them."""
    if kind == "json":
        return json.dumps([{name: wire(v) for name, v in row.items()} for row in rows]).encode()
    if kind == "jsonlines":
        return "\n".join(json.dumps({name: wire(v) for name, v in row.items()}) for row in rows).encode()
    if kind == "csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow([field.name for field in contract])
        for row in rows:
            writer.writerow(["" if row[f.name] is None else wire(row[f.name]) for f in contract])
        return text.getvalue().encode()
    if kind == "npy":
        layout = [(field.name, _npy_type(field, rows)) for field in contract]
        array = np.array(
            [tuple(_npy_value(field, row[field.name]) for field in contract) for row in rows], dtype=layout
        )
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        return file.getvalue()
    table = pa.table(
        {field.name: pa.array([row[field.name] for row in rows], ARROW[field.dtype]) for field in contract}
    )
    return arrow_bytes(kind, table)


def arrow_bytes(kind: str, table: pa.Table, *, chunk: int = 2, **options: Any) -> bytes:
    file = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, file, **options)
    else:
        begin = pa.ipc.new_stream if kind == "arrow-stream" else pa.ipc.new_file
        with begin(file, table.schema, **options) as writer:
            writer.write_table(table, max_chunksize=chunk)
    return file.getvalue()


def _npy_type(field: Field, rows: list[dict[str, Any]]) -> Any:
    if field.dtype is DType.string:
        return f"U{max([1, *(len(row[field.name] or '') for row in rows)])}"
    if field.dtype is DType.timestamp:
        return "M8[us]"
    return np.float64 if field.nullable else field.dtype.value


def _npy_value(field: Field, value: Any) -> Any:
    if field.dtype is DType.timestamp:
        return (
            np.datetime64("NaT", "us") if value is None else np.datetime64(value.replace(tzinfo=None), "us")
        )
    return np.nan if value is None else value


def columns(contract: Contract, inputs: Any) -> list[tuple[str, list[Any]]]:
    """What the model would get, in a form to compare."""
    checked: Columns = Validator(contract).check(inputs, lambda field, rule, rows: None)
    return [
        (name, [None if null else v for v, null in zip(values.tolist(), nulls_of(values), strict=True)])
        for name, values in checked.items()
    ]


@settings(max_examples=150, deadline=None)
@given(tables())
def test_every_form_is_read_to_the_same_columns(drawn: tuple[Contract, list[dict[str, Any]]]) -> None:
    contract, rows = drawn
    wanted = columns(contract, read_rows("json", written("json", contract, rows), contract))
    for kind in formats.TYPES:
        no_nulls = not any(row[f.name] is None for row in rows for f in contract if f.dtype is DType.string)
        if kind == "npy" and not no_nulls:
            continue  # its text has no null
        body = written(kind, contract, rows)
        assert columns(contract, read_rows(kind, body, contract)) == wanted, (kind, body)


TENSORS = Contract(
    inputs=(Field(name="image", dtype=DType.float32, shape=(2, 3)), Field(name="n", dtype=DType.int64)),
    outputs=(
        Output(name="label", dtype=DType.string),
        Output(name="scores", dtype=DType.float32, shape=(2,)),
        Output(name="at", dtype=DType.timestamp),
        Output(name="grid", dtype=DType.int16, shape=(2, 2)),
        Output(name="yes", dtype=DType.bool),
    ),
)
IMAGES = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
OUTPUTS = {
    "label": np.array(["a,b", "é"], dtype=object),
    "scores": np.array([[0.1, np.nan], [0.5, 1]], np.float32),
    "at": np.array(["2026-01-31T12:00", "NaT"], dtype="datetime64[us]"),
    "grid": np.arange(8, dtype=np.int16).reshape(2, 2, 2),
    "yes": np.array([True, False]),
}


@pytest.mark.parametrize("kind", ["arrow-stream", "arrow-file", "parquet"])
def test_tensors_as_lists_of_any_sort(kind: str) -> None:
    numbers = pa.array([1, 2])
    flat = pa.array(IMAGES.reshape(-1))
    fixed = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(flat, 3), 2)
    for image in (fixed, pa.array(IMAGES.tolist(), pa.list_(pa.list_(pa.float32())))):
        body = arrow_bytes(kind, pa.table({"image": image, "n": numbers}))
        read = read_rows(kind, body, TENSORS)
        np.testing.assert_array_equal(np.array(read["image"]), IMAGES)
    if kind != "parquet":
        tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(IMAGES)
        read = read_rows(kind, arrow_bytes(kind, pa.table({"image": tensor, "n": numbers})), TENSORS)
        np.testing.assert_array_equal(np.array(read["image"]).reshape(IMAGES.shape), IMAGES)


@pytest.mark.parametrize("kind", ["arrow-stream", "arrow-file", "parquet"])
def test_answers_are_read_back_by_arrow(kind: str) -> None:
    body = write_outputs(kind, OUTPUTS, TENSORS, None)
    source = pa.BufferReader(body)
    if kind == "parquet":
        table = pq.read_table(source)
    else:
        table = (pa.ipc.open_stream if kind == "arrow-stream" else pa.ipc.open_file)(source).read_all()
    assert table.column_names == list(OUTPUTS)
    assert table.column("label").to_pylist() == ["a,b", "é"]
    assert table.column("at").to_pylist() == [datetime(2026, 1, 31, 12, tzinfo=UTC), None]
    assert table.column("grid").to_pylist() == OUTPUTS["grid"].tolist()
    np.testing.assert_array_equal(np.array(table.column("scores").to_pylist(), np.float32), OUTPUTS["scores"])


def test_answers_as_text() -> None:
    wanted = ("label", "scores", "yes")
    assert write_outputs("csv", OUTPUTS, TENSORS, wanted).decode() == (
        'label,scores_0,scores_1,yes\n"a,b",0.10000000149011612,,true\né,0.5,1.0,false\n'
    )
    lines = write_outputs("jsonlines", OUTPUTS, TENSORS, None).splitlines()
    rows = json.loads(write_outputs("json", OUTPUTS, TENSORS, None))
    assert [json.loads(line) for line in lines] == rows
    assert rows[0]["at"] == "2026-01-31T12:00:00.000000Z"
    assert rows[1]["at"] is None
    assert rows[0]["grid"] == [[0, 1], [2, 3]]


def test_answers_as_npy() -> None:
    one = np.load(io.BytesIO(write_outputs("npy", OUTPUTS, TENSORS, ("scores",))), allow_pickle=False)
    np.testing.assert_array_equal(one, OUTPUTS["scores"])
    several = np.load(io.BytesIO(write_outputs("npy", OUTPUTS, TENSORS, None)), allow_pickle=False)
    assert several.dtype.names == tuple(OUTPUTS)
    np.testing.assert_array_equal(several["grid"], OUTPUTS["grid"])
    assert several["label"].tolist() == ["a,b", "é"]
    with pytest.raises(NotAcceptable, match="nulls"):
        write_outputs("npy", {**OUTPUTS, "label": np.array([None, "a"], object)}, TENSORS, ("label",))


# Content types


@pytest.mark.parametrize("kind", formats.TYPES)
def test_every_name_of_a_form_is_known(kind: str) -> None:
    for name in formats.TYPES[kind]:
        assert kind_of(f"{name.upper()}; charset=UTF-8".encode()) == kind
        assert negotiate(name.encode()) == kind
    assert kind_of(formats.content_type(kind)) == kind


def test_types_that_are_not_read() -> None:
    for name in (
        b"text/html",
        b"application/octet-stream",
        b"application/x-www-form-urlencoded",
        b"\xff",
        b"x" * 9999,
    ):
        with pytest.raises(
            UnsupportedContent, match=r"Known are application/json, text/csv.*apache\.parquet"
        ):
            kind_of(name)
    with pytest.raises(UnsupportedContent, match="UTF-8, not as 'latin-1'"):
        kind_of(b"text/csv; charset=latin-1")
    assert kind_of(None) == kind_of(b"") == kind_of(b"application/cloudevents+json") == "json"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (b"*/*", "json"),
        (b"", "json"),
        (b"application/*", "json"),
        (b"text/*", "json"),  # text/json
        (b"text/csv, application/json;q=0.9", "csv"),
        (b"text/csv;q=0.5, application/json", "json"),
        (b"text/csv;q=0.5, */*;q=0.1", "csv"),
        (b"application/json;q=0, */*", "json"),  # text/json is still welcome
        (b"application/json;q=0, text/json;q=0, */*", "csv"),
        (b"application/x-parquet", "parquet"),
        (b"application/octet-stream", "json"),
        (b"text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        (b"text/csv;q=nonsense, application/x-npy;q=0.1", "npy"),
    ],
)
def test_what_accept_likes_best(accept: bytes, kind: str) -> None:
    assert negotiate(accept) == kind


@pytest.mark.parametrize("accept", [b"image/png", b"text/csv;q=0", b"*/*;q=0", b"application/json;q=2"])
def test_what_cannot_be_written(accept: bytes) -> None:
    with pytest.raises(NotAcceptable, match="known are application/json, text/csv"):
        negotiate(accept)


# Bad bodies

ROW = Contract(
    inputs=(
        Field(name="a", dtype=DType.float64),
        Field(name="s", dtype=DType.string, nullable=True, rules=Rules(on_null=Action.warn)),
    ),
    outputs=(),
)
GOOD = pa.table({"a": [1.0, 2.0], "s": ["x", None]})
BODIES = {
    "json": b'[{"a":1,"s":"x"}]',
    "csv": b"a,s\n1,x\n",
    "jsonlines": b'{"a":1,"s":"x"}\n\n{"a":2,"s":null}',
    "npy": written("npy", Contract(inputs=(Field(name="a", dtype=DType.float64),), outputs=()), [{"a": 1.0}]),
    "arrow-stream": arrow_bytes("arrow-stream", GOOD, options=pa.ipc.IpcWriteOptions(compression="zstd")),
    "arrow-file": arrow_bytes("arrow-file", GOOD),
    "parquet": arrow_bytes("parquet", GOOD),
}


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(sorted(BODIES)))
def test_any_bytes_are_read_or_refused(data: st.DataObject, kind: str) -> None:
    body = bytearray(BODIES[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body)))
        cut = data.draw(st.integers(0, 8))
        body[place : place + cut] = data.draw(st.binary(max_size=8))
    try:
        columns(ROW, read_rows(kind, bytes(body), ROW))
    except InvalidInput:
        pass


@pytest.mark.parametrize("kind", formats.TYPES)
def test_half_a_body(kind: str) -> None:
    for size in (0, 1, 9, len(BODIES[kind]) // 2, len(BODIES[kind]) - 1):
        if kind in ("csv", "jsonlines") and size > 1:
            continue  # less text is text as well
        if kind == "arrow-stream" and size == len(BODIES[kind]) - 1:
            continue  # the end mark of a stream may be missing
        with pytest.raises(InvalidInput):
            columns(ROW, read_rows(kind, BODIES[kind][:size], ROW))


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


class Evil:
    def __reduce__(self) -> Any:
        raise AssertionError("something was unpickled")


def test_nothing_is_unpickled() -> None:
    objects = np.array([{"a": 1}], dtype=object)
    for body in (
        npy(objects, allow_pickle=True),
        npy(np.array([(1, {})], dtype=[("a", int), ("s", object)]), allow_pickle=True),
    ):
        with pytest.raises(UnsupportedContent, match="never read"):
            read_rows("npy", body, ROW)
    with pytest.raises(MalformedInput):
        read_rows("npy", pickle.dumps({"a": [1]}), ROW)


def header(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (header("{'descr':'<f8','fortran_order':False,'shape':(99999999999,2)}"), "claims .* but 0 came"),
        (header(f"{{'descr':'<f8','fortran_order':False,'shape':({9**40},)}}"), "far more"),
        (header("{'descr':'<f8','fortran_order':False,'shape':(-1,2)}"), "header cannot be read"),
        (header("{'descr':'<f8','fortran_order':False,'shape':()}", bytes(8)), "single value"),
        (header("{'descr':'<f8','fortran_order':False}"), "header cannot be read"),
        (header("__import__('os').system('x')"), "header cannot be read"),
        (header("(" * 3000), "header cannot be read"),
        (header("{'descr':'<U0','fortran_order':False,'shape':(999999999999,)}"), "not read here"),
        (header("{'descr':'<c16','fortran_order':False,'shape':(1,)}", bytes(16)), "complex128 are not read"),
        (header("{'descr':'<f16','fortran_order':False,'shape':(1,)}", bytes(16)), "not read here"),
        (header("{'descr':'<m8[s]','fortran_order':False,'shape':(1,)}", bytes(8)), "not read here"),
        (header("{'descr':'|b1','fortran_order':False,'shape':(1,2)}", b"\x02\x00"), "neither 0 nor 1"),
        (header("{'descr':'<U1','fortran_order':False,'shape':(1,2)}", b"\xff" * 8), "do not exist"),
        (header("{'descr':'<U1','fortran_order':False,'shape':(1,2)}", b"\x00\xd8\0\0" * 2), "do not exist"),
        (header("{'descr':[('a','<f8')],'fortran_order':False,'shape':(1,1)}", bytes(8)), "one axis"),
        (b"\x93NUMPY\x09\x00" + bytes(10), "version"),
        (b"\x93NUMPY\x01\x00\xff\xff", "claims 65535 bytes"),
    ],
)
def test_npy_headers_that_lie(body: bytes, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        read_rows("npy", body, ROW)


def test_npy_in_any_order_of_bytes_and_axes() -> None:
    numbers = Contract(inputs=tuple(Field(name=n, dtype=DType.float64) for n in "ab"), outputs=())
    matrix = np.array([[1.5, 2.0], [3.0, 4.0], [5.0, 6.0]])
    for array in (matrix, np.asfortranarray(matrix), matrix.astype(">f8"), matrix.astype(">f4")):
        read = read_rows("npy", npy(array), numbers)
        assert dict(columns(numbers, read)) == {"a": [1.5, 3.0, 5.0], "b": [2.0, 4.0, 6.0]}


def stream(table: pa.Table) -> bytes:
    return arrow_bytes("arrow-stream", table)


@pytest.mark.parametrize("kind", ["arrow-stream", "arrow-file", "parquet"])
def test_types_that_no_field_has(kind: str) -> None:
    nested = pa.array([{"x": 1}, {"x": 2}])
    for column in (
        nested,
        pa.array([[1.0], [2.0]]),
        pa.array([[(1, 2)], []], pa.map_(pa.int64(), pa.int64())),
    ):
        with pytest.raises(MalformedInput) as refused:
            read_rows(kind, arrow_bytes(kind, pa.table({"a": column, "s": ["x", "y"]})), ROW)
        assert refused.value.problems[0].field == "a"
    # In columns that the model does not know, anything may stand.
    read = read_rows(kind, arrow_bytes(kind, GOOD.append_column("other", nested)), ROW)
    assert [name for name, _ in columns(ROW, read)] == ["a", "s"]


@pytest.mark.parametrize("kind", ["arrow-stream", "arrow-file", "parquet"])
def test_columns_of_one_name(kind: str) -> None:
    twice = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])
    with pytest.raises(MalformedInput, match="repeat: a"):
        read_rows(kind, arrow_bytes(kind, twice), ROW)


@pytest.mark.parametrize("kind", ["arrow-stream", "arrow-file", "parquet"])
def test_other_types_of_the_same_values(kind: str) -> None:
    when = Contract(
        inputs=(Field(name="t", dtype=DType.timestamp), Field(name="d", dtype=DType.float64),
                Field(name="n", dtype=DType.int64), Field(name="s", dtype=DType.string)), outputs=()
    )  # fmt: skip
    table = pa.table(
        {
            "t": pa.array([0, 86_400_000_000_000], pa.timestamp("ns", "Europe/Berlin")),
            "d": pa.array([Decimal("1.5"), Decimal("2.25")]),
            "n": pa.array([3.0, 4.0]),
            "s": pa.array(["x", "x"]).dictionary_encode(),
        }
    )
    read = dict(columns(when, read_rows(kind, arrow_bytes(kind, table), when)))
    assert read["t"] == [datetime(1970, 1, 1), datetime(1970, 1, 2)]
    assert (read["d"], read["n"], read["s"]) == ([1.5, 2.25], [3, 4], ["x", "x"])
    wrong = arrow_bytes(kind, pa.table({"t": ["a"], "d": [1.0], "n": [1], "s": ["x"]}))
    with pytest.raises(InvalidInput):
        columns(when, read_rows(kind, wrong, when))


@pytest.mark.parametrize("kind", ["arrow-stream", "arrow-file"])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_an_arrow_bomb(kind: str, codec: str) -> None:
    """A column of zeros that unpacks to more than may be."""
    table = pa.table({"a": np.zeros(2_000_000), "s": pa.nulls(2_000_000, pa.string())})
    file = io.BytesIO()
    begin = pa.ipc.new_stream if kind == "arrow-stream" else pa.ipc.new_file
    with begin(file, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        for _ in range(40):
            writer.write_table(table)
    with pytest.raises(InvalidInput, match="claims"):
        read_rows(kind, file.getvalue(), ROW)
    assert len(file.getvalue()) < 20_000_000


def test_rows_that_take_no_bytes() -> None:
    nothing = pa.table({"a": pa.nulls(arrow.MOST_ROWS + 1)})
    with pytest.raises(InvalidInput, match="rows; the most is"):
        read_rows("arrow-stream", arrow_bytes("arrow-stream", nothing, chunk=1_000_000), ROW)
    with pytest.raises(InvalidInput, match="rows; the most is"):
        read_rows("parquet", arrow_bytes("parquet", nothing), ROW)


def test_one_long_text_many_times_stays_one_text() -> None:
    text = "x" * 100_000
    texts = pa.DictionaryArray.from_arrays(np.zeros(20_000, dtype=np.int32), [text])
    body = arrow_bytes("parquet", pa.table({"a": np.ones(20_000), "s": texts}), store_schema=False)
    assert len(body) < 1_000_000  # 2 GB once it were written out
    read = read_rows("parquet", body, ROW)
    assert len({id(value) for value in read["s"]}) == 1


def test_without_pyarrow_the_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnsupportedContent, match="pyarrow is not installed"):
        read_rows("parquet", BODIES["parquet"], ROW)


@pytest.mark.parametrize(
    ("kind", "body", "why"),
    [
        ("jsonlines", b'{"a":1}\n{"a":', "Line 2 is not"),
        ("jsonlines", b'{"a":1}\n\n[1,2] 3', "Line 3"),
        ("jsonlines", b'{"a":1},{"a":2}', "Line 1"),
        ("jsonlines", b"\xff", "UTF-8"),
        ("json", b"\xff", "JSON|UTF-8"),
        ("json", b"3", "a list of rows"),
        ("json", b"{}", "a list of rows"),
        ("json", b"[" * 5000, "not JSON"),
    ],
)
def test_text_that_is_no_rows(kind: str, body: bytes, why: str) -> None:
    with pytest.raises(MalformedInput, match=why):
        read_rows(kind, body, ROW)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({b"content-type": b"application/json", b"accept": b"*/*"}, False),
        ({b"content-type": b"text/csv", b"accept": b"application/json"}, False),
        ({b"content-type": b"application/X-Parquet"}, True),
        ({b"content-type": b"application/json", b"accept": b"application/vnd.apache.arrow.file"}, True),
    ],
)
def test_what_goes_through_pyarrow_is_known_by_its_headers(
    headers: dict[bytes, bytes], expected: bool
) -> None:
    assert formats.takes_long(headers) is expected
