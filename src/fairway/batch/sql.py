"""Rows from a query and into a table, of any database that SQLAlchemy knows (upserts: SQLite and PostgreSQL).

    postgresql://user@host/database?table=customers&key=id          rows in key order
    postgresql://user@host/database?query=select ... &key=id
    postgresql://user@host/database/scores?key=id                   a sink: the table after the database, or table=
    sqlite:///scores.db?table=scores&key=id

Reading goes by ranges of the key, so that no transaction is held open for hours and a run can go on where it was; so
the key must be unique and never null. Writing is one transaction for each part, with a mark of the part in it: see
`ledger.py`. With a key rows of the same key are replaced, without one they are added. PostgreSQL is read and written
by COPY (`sql_copy.py`), others value by value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fairway.batch import sql_copy
from fairway.batch.columns import flat_table, without_nan
from fairway.batch.lines import types_of
from fairway.batch.sink import Written, join_rejects
from fairway.batch.source import Piece, Position
from fairway.core.contract import Contract
from fairway.core.errors import (
    AlreadyExists,
    InvalidInput,
    MalformedInput,
    MissingExtra,
    NotSupported,
    StorageFull,
    Unavailable,
)

MARKS = "fairway_batch_parts"
"""Table beside a sink's own: which parts of which runs are in it."""
_BATCH_ROWS = 10_000
_DISK_FULL = "53100"
"""PostgreSQL's error code."""
_UPSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Place(msgspec.Struct, frozen=True):
    """A database, and what of it. `shown` is the URL without its password."""

    url: str
    table: str
    query: str
    keys: tuple[str, ...]
    shown: str

    @property
    def key(self) -> str:
        """As it is named in messages."""
        return ", ".join(self.keys)


def is_sql(url: str) -> bool:
    scheme = url.partition("://")[0].partition("+")[0]
    return "://" in url and scheme in (
        "sqlite",
        "postgresql",
        "postgres",
        "mysql",
        "mariadb",
        "oracle",
        "mssql",
    )


def read_place(url: str) -> Place:
    """Raises InvalidInput for a URL that names neither a table nor a query."""
    text = "postgresql" + url[8:] if url.startswith("postgres://") else url
    try:
        parsed = sa.make_url(text)
    except sa.exc.ArgumentError as error:
        raise InvalidInput(f"{url!r} is not the URL of a database.") from error
    given = {name: value if isinstance(value, str) else value[-1] for name, value in parsed.query.items()}
    own = {name: given.pop(name, "") for name in ("table", "query", "key")}
    database = parsed.database or ""
    if not own["table"] and not own["query"] and parsed.get_backend_name() != "sqlite" and "/" in database:
        database, _, own["table"] = database.partition("/")
    if bool(own["table"]) == bool(own["query"]):
        raise InvalidInput(
            f"{parsed.set(password='***' if parsed.password else None)} must name a table or a query.",
            hint="Add ?table=NAME&key=COLUMN, or ?query=select ...&key=COLUMN.",
        )
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    plain = parsed.set(query=given, database=database)
    return Place(
        plain.render_as_string(hide_password=False),
        own["table"],
        own["query"],
        tuple(name.strip() for name in own["key"].split(",") if name.strip()),
        plain.render_as_string(),
    )


@contextmanager
def _errors(place: Place, what: str, engine: sa.Engine) -> Iterator[None]:
    """What the database or its driver raises, by meaning."""
    driver: Any = engine.dialect.dbapi
    try:
        yield
    except (sa.exc.SQLAlchemyError, driver.Error) as error:
        cause = getattr(error, "orig", None) or error
        text = f"cannot {what} {place.shown}: {_first_line(error).rstrip('.')}."
        if getattr(cause, "sqlstate", None) == _DISK_FULL or "disk is full" in str(cause):
            raise StorageFull(text, hint="Free some space there, then run the same command again.") from error
        if isinstance(cause, driver.OperationalError | driver.InterfaceError) and "no such" not in str(cause):
            raise Unavailable(text, hint="What was done is kept: run the same command again.") from error
        raise InvalidInput(text) from error


@contextmanager
def _connected(engine: sa.Engine, place: Place, what: str) -> Iterator[sa.Connection]:
    """A connection and a transaction, given up when the block fails."""
    driver: Any = engine.dialect.dbapi
    with _errors(place, what, engine), engine.connect() as connection, connection.begin():
        try:
            yield connection
        except (
            driver.Error
        ) as error:  # by the driver itself: SQLAlchemy does not know that the connection may be gone
            connection.invalidate(error)
            raise


def _first_line(error: Exception) -> str:
    return (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]


def _engine(place: Place) -> sa.Engine:
    try:
        return sa.create_engine(place.url)
    except (ModuleNotFoundError, sa.exc.NoSuchModuleError) as error:
        raise MissingExtra(f"the driver of {place.shown} is not installed: {error}.") from error


class SqlSource:
    """A table or a query, in the order of its key."""

    def __init__(self, place: Place) -> None:
        if not place.keys:
            raise InvalidInput(
                f"rows of {place.shown} are read in the order of a unique key, and none is named.",
                hint="Add &key=COLUMN to the URL, or &key=A,B.",
            )
        self._place = place
        self._engine = _engine(place)

    def names(self) -> list[str]:
        with self._connected() as connection:
            wanted = sa.select(sa.text("*")).select_from(sa.text(self._rows())).limit(0)
            return list(connection.execute(wanted).keys())

    def count(self) -> int:
        """How many rows there are now."""
        with self._connected() as connection:
            wanted = sa.select(sa.func.count()).select_from(sa.text(self._rows()))
            return int(connection.execute(wanted).scalar() or 0)

    def every(self, rows: int) -> list[Any]:
        """The key of each `rows`-th row in the order of the key, by the database's own order of it."""
        keys = self._columns()
        place = sa.func.row_number().over(order_by=keys).label("fairway_place")
        placed = sa.select(*keys, place).select_from(sa.text(self._rows())).subquery("fairway_placed")
        wanted = sa.select(*(placed.c[key] for key in self._place.keys))
        wanted = wanted.where(placed.c.fairway_place % rows == 0).order_by(placed.c.fairway_place)
        with self._connected() as connection:
            return [_as_key(_plain_key(tuple(map(_plain, row)))) for row in connection.execute(wanted)]

    def kept_schema(self, contract: Contract, kept: Sequence[str] | None, rows: int) -> pa.Schema:
        """Names and types of the columns that go to an output (None: all), by the first `rows` rows. Raises
        MalformedInput naming what a contract's rows, or these columns, lack."""
        names = self.names()
        lacking = [name for name in (*(f.name for f in contract), *(kept or ())) if name not in names]
        if lacking:
            raise MalformedInput(f"the rows of {self._place.shown} have no column {', '.join(lacking)}.")
        wanted = names if kept is None else list(kept)
        found = self.pieces(Position(), rows)
        piece = next(found, None)
        found.close()
        raw = piece.raw if piece else {name: [] for name in wanted}
        if isinstance(raw, pa.Table):
            return pa.schema([raw.schema.field(name) for name in wanted])
        return pa.schema(list(types_of({name: raw[name] for name in wanted}).items()))

    def pieces(self, start: Position, rows: int, stop: Any = None) -> Generator[Piece]:
        """Tables or columns of `rows` rows with a key above `start.key` and, unless it is None, not above `stop`.
        Raises MalformedInput where the key is null or not unique, Unavailable when the database is away."""
        keys = self._place.keys
        last = None if start.key is None else _as_tuple(start.key)
        end = None if stop is None else _as_tuple(stop)
        first: list[str] | None = None
        if last is None:
            self._check_nulls()
        while True:
            found, ends = self._read(last, end, rows + 1)
            names = list(found.column_names if isinstance(found, pa.Table) else found)
            if first is not None and names != first:
                raise MalformedInput(f"the columns of {self._place.shown} have changed since the run began.")
            first = names
            if not ends:
                return
            twice = next((a for a, b in pairwise(ends) if a == b), None)
            if twice is not None:
                shown = repr(twice[0]) if len(keys) == 1 else repr(twice)
                raise MalformedInput(f"the key {self._place.key!r} is not unique: {shown} is there twice.")
            chunk = _first_rows(found, rows)
            last = _plain_key(ends[min(len(ends), rows) - 1])
            yield Piece(chunk, key=_as_key(last))
            if len(ends) <= rows:
                return

    def _check_nulls(self) -> None:
        with self._connected() as connection:
            nulls = sa.select(sa.literal(1)).select_from(sa.text(self._rows()))
            nulls = nulls.where(sa.or_(*(column.is_(None) for column in self._columns()))).limit(1)
            if connection.execute(nulls).first() is not None:
                raise MalformedInput(f"the key {self._place.key!r} is null in some rows.")

    def _read(
        self, last: tuple[Any, ...] | None, end: tuple[Any, ...] | None, limit: int
    ) -> tuple[pa.Table | dict[str, Sequence[Any]], list[tuple[Any, ...]]]:
        """Rows above `last` and not above `end`, at most `limit`, and their keys."""
        keys = self._place.keys
        with self._connected() as connection:
            if self._engine.dialect.name == "postgresql":
                driver = connection.connection.driver_connection
                types = sql_copy.column_types(driver, self._rows(escaped=False))
                if types is not None and all(key in types for key in keys):
                    with suppress(pa.ArrowInvalid):  # the driver reads, or names, what Arrow cannot
                        table = sql_copy.read_rows(
                            driver, self._rows(escaped=False), keys, last, end, limit, types
                        )
                        return table, list(zip(*(table.column(key).to_pylist() for key in keys), strict=True))
            columns = self._columns()
            wanted = (
                sa.select(sa.text("*")).select_from(sa.text(self._rows())).order_by(*columns).limit(limit)
            )
            if last is not None:
                wanted = wanted.where(self._is_above(last))
            if end is not None:
                wanted = wanted.where(sa.not_(self._is_above(end)))
            result = connection.execute(wanted)
            names = list(result.keys())
            found = result.fetchall()
        if any(key not in names for key in keys):
            raise MalformedInput(f"there is no column {self._place.key!r} to read by in {self._place.shown}.")
        values = list(zip(*found, strict=True)) if found else [()] * len(names)
        read = {name: _plain_column(column) for name, column in zip(names, values, strict=True)}
        return read, list(zip(*(read[key] for key in keys), strict=True))

    def _columns(self) -> list[sa.ColumnClause[Any]]:
        return [sa.column(key) for key in self._place.keys]

    def _is_above(self, key: tuple[Any, ...]) -> Any:
        """Rows behind the row of `key`."""
        columns = self._columns()
        if len(columns) == 1:
            return columns[0] > key[0]
        if self._engine.dialect.name in ("sqlite", "postgresql", "mysql", "mariadb"):
            return sa.tuple_(*columns) > sa.tuple_(*(sa.literal(value) for value in key))
        heads = (
            [column == value for column, value in zip(columns[:i], key, strict=False)]
            for i in range(len(key))
        )
        return sa.or_(*(sa.and_(*head, columns[i] > key[i]) for i, head in enumerate(heads)))

    def _rows(self, *, escaped: bool = True) -> str:
        """What stands behind FROM. `escaped`: for SQLAlchemy, which takes :word for a parameter."""
        place = self._place
        if place.query:
            query = place.query.strip().rstrip(";")
            return f"({query.replace(':', chr(92) + ':') if escaped else query}) AS fairway_rows"
        quote = self._engine.dialect.identifier_preparer.quote
        return ".".join(quote(part) for part in place.table.rpartition(".")[::2] if part)

    def _connected(self) -> AbstractContextManager[sa.Connection]:
        return _connected(self._engine, self._place, "read from")

    def close(self) -> None:
        self._engine.dispose()


def _first_rows(found: pa.Table | dict[str, Sequence[Any]], rows: int) -> pa.Table | dict[str, Sequence[Any]]:
    if isinstance(found, pa.Table):
        return found.slice(0, rows)
    return {name: values[:rows] for name, values in found.items()}


def _as_key(key: tuple[Any, ...]) -> Any:
    """As a position keeps it."""
    return key[0] if len(key) == 1 else list(key)


def _as_tuple(key: Any) -> tuple[Any, ...]:
    return tuple(key) if isinstance(key, list | tuple) else (key,)


def _plain_column(values: Sequence[Any]) -> list[Any]:
    odd = {kind for kind in set(map(type, values)) if kind.__name__ in ("Decimal", "UUID")}
    return [_plain(value) for value in values] if odd else list(values)


def _plain(value: Any) -> Any:
    if type(value).__name__ == "Decimal":
        return float(value)
    return str(value) if type(value).__name__ == "UUID" else value


def _plain_key(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A key as JSON keeps it: numbers and text as they are; others cannot be gone on from."""
    for value in key:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise InvalidInput(f"a key must be whole numbers or text, not {type(value).__name__}.")
    return key


class _Marked(Exception):
    """The part is in the table already."""


class SqlSink:
    """A table. It is made if it is not there; with a key it may hold rows already, which are replaced by theirs.

    `attempt` is what parts are marked by: no two runs may have the same, or the later one's rows are taken for written."""

    def __init__(self, place: Place, attempt: str, scratch: Path) -> None:
        if place.query:
            raise InvalidInput("a sink is a table, not a query.", hint="Say ?table=NAME.")
        self._place, self._attempt, self._scratch = place, attempt, scratch
        self._engine = _engine(place)
        if place.keys and self._engine.dialect.name not in _UPSERTS:
            raise NotSupported(
                f"upserts are not known for {self._engine.dialect.name}.", hint="Leave out key=."
            )
        self._metadata = sa.MetaData()
        schema, _, self._name = place.table.rpartition(".")
        self._schema = schema or None
        self._marks = sa.Table(
            MARKS,
            self._metadata,
            sa.Column("run", sa.String(200), primary_key=True),
            sa.Column("part", sa.String(100), primary_key=True),
        )
        self._table: sa.Table | None = None

    def check(self, *, overwrite: bool) -> None:
        with _errors(self._place, "write to", self._engine), self._engine.begin() as connection:
            if not self._holds_rows(connection):
                return
            if overwrite:
                connection.execute(sa.delete(sa.table(self._name, schema=self._schema)))
            elif not self._place.keys:
                raise AlreadyExists(
                    f"the table {self._place.table} already holds rows, and without a key they cannot be replaced.",
                    hint="Name a key in the URL (&key=COLUMN), another table, or say --overwrite: that empties it.",
                )

    def begin(self, folder: str, name: str, schema: pa.Schema) -> _SqlPart:
        with _errors(self._place, "write to", self._engine):
            return _SqlPart(self, name, schema)

    def ready(self, schema: pa.Schema) -> sa.Table:
        """The table, made when it is not there. Raises InvalidInput when it lacks columns."""
        if self._table is None:
            flat = flat_table(schema.empty_table()).schema
            if not set(flat.names) >= set(self._place.keys):
                raise InvalidInput(
                    f"the key {self._place.key!r} is not among the columns written: {', '.join(flat.names)}.",
                    hint=f"Add it: --keep {','.join(self._place.keys)}",
                )
            columns = [
                sa.Column(
                    f.name, _sql_type(f.type), primary_key=f.name in self._place.keys, autoincrement=False
                )
                for f in flat
            ]
            table = sa.Table(self._name, self._metadata, *columns, schema=self._schema)
            try:
                self._metadata.create_all(self._engine)
            except sa.exc.DBAPIError:  # another run made one of them at the same moment
                self._metadata.create_all(self._engine)
            there = {
                column["name"] for column in sa.inspect(self._engine).get_columns(self._name, self._schema)
            }
            if not there >= set(flat.names):
                lacking = ", ".join(name for name in flat.names if name not in there)
                raise InvalidInput(f"the table {self._place.table} has no column {lacking}.")
            self._table = table
        return self._table

    @property
    def place(self) -> Place:
        return self._place

    def holds_rows(self) -> bool:
        """Whether the table is there, and not empty."""
        with _errors(self._place, "read from", self._engine), self._engine.connect() as connection:
            return self._holds_rows(connection)

    def _holds_rows(self, connection: sa.Connection) -> bool:
        if not sa.inspect(connection).has_table(self._name, self._schema):
            return False
        table = sa.table(self._name, schema=self._schema)
        return connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None

    def put(self, name: str, tables: Sequence[pa.Table], blocks: Sequence[bytes]) -> None:
        """The rows (`blocks` are they as CSV) and their mark, in one transaction. The mark comes first: it waits for that
        of a process that was killed, whose transaction the database may still be ending, and then is there already."""
        with suppress(_Marked), _connected(self._engine, self._place, "write to") as connection:
            try:
                connection.execute(sa.insert(self._marks).values(run=self._attempt, part=name))
            except sa.exc.IntegrityError as error:
                raise _Marked from error
            if self._engine.dialect.name == "postgresql":
                if tables:
                    sql_copy.write_rows(
                        connection.connection.driver_connection,
                        self._name,
                        self._schema,
                        tables[0].column_names,
                        self._place.keys,
                        blocks,
                    )
            else:
                for table in tables:
                    for batch in table.to_batches(_BATCH_ROWS):
                        connection.execute(self._statement(table.column_names), batch.to_pylist())

    def _statement(self, names: Sequence[str]) -> Any:
        assert self._table is not None, "ready comes first"
        keys = self._place.keys
        if not keys:
            return sa.insert(self._table)
        insert: Any = _UPSERTS[self._engine.dialect.name](self._table)
        others = {name: insert.excluded[name] for name in names if name not in keys}
        return (
            insert.on_conflict_do_update(index_elements=list(keys), set_=others)
            if others
            else insert.on_conflict_do_nothing(index_elements=list(keys))
        )

    def finish(
        self, parts: Sequence[Written], rejects: Sequence[Path], manifest: bytes, *, whole: bool
    ) -> str:
        return join_rejects(rejects, self._scratch)

    def close(self) -> None:
        self._engine.dispose()


class _SqlPart:
    """A transaction at its end. A part whose mark is there already is in the table, and is left as it is."""

    def __init__(self, sink: SqlSink, name: str, schema: pa.Schema) -> None:
        self._sink, self._name = sink, name
        sink.ready(schema)
        self._digest = hashlib.sha256()
        self._tables: list[pa.Table] = []
        self._blocks: list[bytes] = []

    def write(self, table: pa.Table) -> None:
        flat = without_nan(flat_table(table))
        block = sql_copy.as_csv(flat)
        self._digest.update(block)
        self._tables.append(flat)
        self._blocks.append(block)

    @property
    def bytes(self) -> int:
        return sum(map(len, self._blocks))

    def commit(self) -> Written:
        """All in one transaction, as short as it can be: a source in the same database goes on reading meanwhile."""
        size = sum(map(len, self._blocks))
        written = Written(self._name, size, self._digest.hexdigest())
        tables, blocks = self._tables, self._blocks
        last = _last_of_each(tables, self._sink.place.keys)
        if last is not None:
            tables, blocks = [last], [sql_copy.as_csv(last)]
        self._sink.put(self._name, tables, blocks)
        return written

    def abort(self) -> None:
        self._tables.clear()
        self._blocks.clear()


def _last_of_each(tables: Sequence[pa.Table], keys: Sequence[str]) -> pa.Table | None:
    """Of several rows with one key the last, as rows written one after the other would leave it; None when no key is
    there twice."""
    if not keys or not tables:
        return None
    table = pa.concat_tables(tables)
    places = table.select(list(keys)).append_column("", pa.array(np.arange(len(table))))
    last = places.group_by(list(keys)).aggregate([("", "max")])
    if len(last) == len(table):
        return None
    return table.take(last.column("_max").combine_chunks().sort())


def _sql_type(kind: pa.DataType) -> Any:
    types = pa.types
    if types.is_boolean(kind):
        return sa.Boolean()
    if types.is_integer(kind):
        return sa.BigInteger()
    if types.is_floating(kind):
        return sa.Double()
    if types.is_timestamp(kind):
        return sa.DateTime(timezone=kind.tz is not None)
    if types.is_date(kind):
        return sa.Date()
    return sa.Text()
