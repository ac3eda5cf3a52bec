"""What a run is planned to do."""

import pyarrow as pa
import pytest

from fairway.batch.plan import (
    ErrorLimit,
    Options,
    make_reading,
    output_names,
    output_schema,
    part_rows,
    read_limit,
    read_size,
    run_name,
)
from fairway.batch.run import shown
from fairway.batch.score import Calls
from fairway.batch.source import SourceFile
from fairway.core.errors import InvalidInput, UnsupportedContent
from tests.planes import TWO_NUMBERS

OPTIONS = Options(input="in", output="out")


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("", ErrorLimit()),
        ("1%", ErrorLimit(share=0.01)),
        ("0", ErrorLimit(rows=0)),
        ("0.5%", ErrorLimit(share=0.005)),
    ],
)
def test_limits(text: str, limit: ErrorLimit) -> None:
    assert read_limit(text) == limit


@pytest.mark.parametrize("text", ["-1", "101%", "many", "1.5", "%", "nan%"])
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(InvalidInput, match="--max-errors"):
        read_limit(text)


def test_a_share_is_judged_when_there_are_rows_to_judge() -> None:
    limit = ErrorLimit(share=0.01)
    assert not limit.is_passed(1, 1, ended=False)
    assert limit.is_passed(1, 1, ended=True)
    assert not limit.is_passed(10, 1000, ended=False)
    assert limit.is_passed(11, 1000, ended=False)
    assert not ErrorLimit().is_passed(9, 9, ended=True)
    assert ErrorLimit(rows=3).is_passed(4, 4, ended=False)


def test_slow_models_get_small_chunks_and_parts() -> None:
    quick = make_reading(OPTIONS, TWO_NUMBERS, Calls(100, 1e-7))
    slow = make_reading(OPTIONS, TWO_NUMBERS, Calls(1, 0.5))
    assert (quick.chunk_rows, slow.chunk_rows) == (65_536, 2)
    assert slow.chunk_bytes == 1024
    assert part_rows(OPTIONS, Calls(1, 0.5), 2, sql=False) == 240
    assert part_rows(OPTIONS, Calls(1, 1e-9), 2, sql=True) == 50_000


def test_a_run_has_its_name_from_what_it_does() -> None:
    files = [SourceFile("x.csv", "csv", bytes=5, stamp="1")]
    name = run_name("m", "sha256:1", OPTIONS, files)
    assert name == run_name("m", "sha256:1", OPTIONS, files)
    others = [
        run_name("m", "sha256:2", OPTIONS, files),
        run_name("m", "sha256:1", Options(input="in", output="other"), files),
        run_name("m", "sha256:1", OPTIONS, [SourceFile("x.csv", "csv", bytes=5, stamp="2")]),
    ]
    assert len({name, *others}) == 4
    assert name == run_name("m", "sha256:1", Options(input="in", output="out", max_errors="1%"), files)


def test_kept_columns_step_aside_for_outputs() -> None:
    kept = pa.schema([("sum", pa.int64()), ("id", pa.string())])
    assert output_names(kept, TWO_NUMBERS) == ["input_sum", "id"]
    assert output_schema(kept, TWO_NUMBERS, flat=True).names == ["input_sum", "id", "sum", "both"]
    with pytest.raises(InvalidInput, match="input_sum"):
        output_names(pa.schema([("sum", pa.int64()), ("input_sum", pa.int64())]), TWO_NUMBERS)
    lists = pa.schema([("tags", pa.list_(pa.string()))])
    with pytest.raises(UnsupportedContent, match="tags"):
        output_schema(lists, TWO_NUMBERS, flat=True)
    assert "tags" in output_schema(lists, TWO_NUMBERS, flat=False).names


def test_passwords_are_not_shown() -> None:
    assert shown("postgresql://ann:secret@host/db") == "postgresql://ann@host/db"
    assert shown("s3://bucket/x") == "s3://bucket/x"
    assert shown("a/b.csv") == "a/b.csv"


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 0), ("128MB", 128_000_000), ("1.5 gib", 3 * 2**29), ("10kB", 10_000), ("7b", 7), ("2TiB", 2**41)],
)
def test_sizes(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["large", "128", "0MB", "-1MB", "1 M", "1e3MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInput, match="128MB"):
        read_size(text)
