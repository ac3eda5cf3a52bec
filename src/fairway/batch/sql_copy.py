"""PostgreSQL's COPY: rows as CSV out of a query and into a table, column by column, several times as fast as values.

What Arrow reads of it is what the driver would have given: floats are written so that they read back the same, null is
an empty cell and empty text a quoted one (PostgreSQL, COPY, "CSV Format").
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv

_TYPES = {
    16: pa.bool_(), 20: pa.int64(), 21: pa.int64(), 23: pa.int64(), 26: pa.int64(), 700: pa.float64(), 701: pa.float64(),
    1700: pa.float64(), 18: pa.string(), 19: pa.string(), 25: pa.string(), 1042: pa.string(), 1043: pa.string(),
    2950: pa.string(), 1082: pa.date32(), 1114: pa.timestamp("us"), 1184: pa.timestamp("us", "UTC"),
}  # fmt: skip
"""Type numbers of PostgreSQL (catalog pg_type) that are read column by column."""
_BLOCK_BYTES = 1024 * 1024


def column_types(connection: Any, rows: str) -> dict[str, pa.DataType] | None:
    """Names and types of the columns of `rows`, what stands behind FROM; None when some are not read in this way."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {rows} LIMIT 0", prepare=False)  # noqa: S608 - the user's own query
        described = cursor.description or ()
    names = [column.name for column in described]
    known = all(column.type_code in _TYPES for column in described) and len(set(names)) == len(names)
    return {column.name: _TYPES[column.type_code] for column in described} if known else None


def read_rows(
    connection: Any,
    rows: str,
    keys: Sequence[str],
    last: Sequence[Any] | None,
    end: Sequence[Any] | None,
    limit: int,
    types: dict[str, Any],
) -> pa.Table:
    """At most `limit` rows with keys above `last` and not above `end`, in key order. Raises ArrowInvalid for values that
    Arrow has no form for, such as dates before the year 1."""
    from psycopg import sql  # an extra

    named = sql.SQL(", ").join(map(sql.Identifier, keys))
    limits = [
        sql.SQL("({}) {} ({})").format(named, sql.SQL(sign), sql.SQL(", ").join(map(sql.Literal, key)))
        for sign, key in ((">", last), ("<=", end))
        if key is not None
    ]
    where = sql.SQL("WHERE ") + sql.SQL(" AND ").join(limits) if limits else sql.SQL("")
    columns = sql.SQL(", ").join(map(sql.Identifier, types))
    statement = sql.Composed(
        [
            sql.SQL("COPY (SELECT {} FROM ").format(columns),
            sql.SQL(rows),
            sql.SQL(" {} ORDER BY {} LIMIT {}) TO STDOUT (FORMAT csv)").format(
                where, named, sql.Literal(limit)
            ),
        ]
    )
    data = bytearray()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'")
        with cursor.copy(statement) as copy:
            for block in copy:
                data += block
    if not data:
        return pa.schema(list(types.items())).empty_table()
    return pyarrow.csv.read_csv(
        pa.BufferReader(pa.py_buffer(data)),
        read_options=pyarrow.csv.ReadOptions(
            column_names=list(types), block_size=_BLOCK_BYTES, use_threads=False
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=b'"' in data),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types,
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def as_csv(table: pa.Table) -> bytes:
    """Rows as COPY takes them. Single precision is written as the double it is, which is what the column holds."""
    doubles = [
        field.with_type(pa.float64()) if field.type in (pa.float16(), pa.float32()) else field
        for field in table.schema
    ]
    table = table.cast(pa.schema(doubles))
    out = io.BytesIO()
    pyarrow.csv.write_csv(table, out, pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed"))
    return out.getvalue()


def write_rows(
    connection: Any,
    table: str,
    schema: str | None,
    names: Sequence[str],
    keys: Sequence[str],
    blocks: Iterable[bytes],
) -> None:
    """Adds rows to a table; with `keys` rows of the same keys are replaced. In the caller's transaction."""
    from psycopg import sql  # an extra

    target = sql.Identifier(schema, table) if schema else sql.Identifier(table)
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    into = sql.Identifier("fairway_part") if keys else target
    with connection.cursor() as cursor:
        # The ledger will say that this is done: a server that confirms first and writes later would make it a liar.
        cursor.execute("SET LOCAL synchronous_commit = on")
        if keys:
            cursor.execute(
                sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} LIMIT 0").format(
                    into, columns, target
                )
            )
        with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(into, columns)) as copy:
            for block in blocks:
                copy.write(block)
        if keys:
            others = [name for name in names if name not in keys]
            replaced = sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in others
            )
            action = sql.SQL("UPDATE SET {}").format(replaced) if others else sql.SQL("NOTHING")
            cursor.execute(
                sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT ({}) DO {}").format(
                    target, columns, columns, into, sql.SQL(", ").join(map(sql.Identifier, keys)), action
                )
            )
