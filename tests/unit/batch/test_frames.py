"""Tables of somebody else's: every row back in its place, and bad ones with a reason."""

import pyarrow as pa
import pytest

from fairway.batch.bundles import Loaded
from fairway.batch.frames import Frame, frame_schema, score_frame
from fairway.core.errors import ContractViolation, InvalidInput
from tests.planes import TWO_NUMBERS, live_version

LOADED = Loaded(live_version(1), None, 100)
TABLE = pa.table(
    {"id": [1, 2, 3, 4], "a": [1.0, None, 3.0, 4.0], "b": [1.0, 1.0, 2.0, None], "sum": list("wxyz")}
)


def test_every_row_comes_back_in_its_place() -> None:
    scored = score_frame(LOADED, TABLE, Frame(("id", "sum")))
    assert scored.schema == frame_schema(TABLE.schema, TWO_NUMBERS, Frame(("id", "sum")))
    assert scored.column_names == ["id", "input_sum", "sum", "both", "reject"]
    assert scored["sum"].to_pylist() == [2.0, None, 5.0, None]
    assert scored["both"].to_pylist() == [[1.0, 1.0], None, [3.0, 2.0], None]
    whys = scored["reject"].to_pylist()
    assert [why is not None for why in whys] == [False, True, False, True]
    assert whys[1].startswith("a: ")
    assert whys[3].startswith("b: ")


@pytest.mark.parametrize("rows", [0, 1])
def test_tables_without_a_good_row(rows: int) -> None:
    scored = score_frame(LOADED, TABLE.slice(1, rows), Frame())
    assert scored.num_rows == rows
    assert scored["both"].null_count == rows


def test_bad_rows_fail_the_job_where_that_is_wanted() -> None:
    with pytest.raises(ContractViolation, match="2 of 4 rows break the contract: a: "):
        score_frame(LOADED, TABLE, Frame(("id",), "raise"))
    good = score_frame(LOADED, TABLE.slice(0, 1), Frame(("id",), "raise"))
    assert good.column_names == ["id", "sum", "both"]


def test_columns_that_are_not_there_or_twice_are_named() -> None:
    with pytest.raises(InvalidInput, match=r"no column nope, b;"):
        frame_schema(pa.schema([("a", pa.float64())]), TWO_NUMBERS, Frame(("nope",)))
    twice = pa.schema([("a", pa.float64()), ("b", pa.float64()), ("reject", pa.string())])
    with pytest.raises(InvalidInput, match="reject"):
        frame_schema(twice, TWO_NUMBERS, Frame())
