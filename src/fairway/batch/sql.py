"""Rows from a query and into a table, of any database that SQLAlchemy knows (upserts: SQLite and PostgreSQL).

    postgresql://user@host/database?table=customers&key=id          rows in key order
    postgresql://user@host/database?query=select ... &key=id
    postgresql://user@host/database/scores?key=id                   a sink: the table after the database, or table=
    sqlite:///scores.db?table=scores&key=id

Reading goes by ranges of the key, so that no transaction is held open for hours and a run can go on where it was; so
the key must be unique and never null. Writing is one transaction for each part, with a mark of the part in it: see
`ledger.py`. With a key rows of the same key are replaced, without one they are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fairway.batch.columns import flat_table, without_nan
from fairway.batch.sink import Written, join_rejects
from fairway.batch.source import Piece, Position
from fairway.core.errors import (
    AlreadyExists,
    InvalidInput,
    MalformedInput,
    MissingExtra,
    NotSupported,
    Unavailable,
)

MARKS = "fairway_batch_parts"
"""Table beside a sink's own: which parts of which runs are in it."""
_PARAMETERS = 30_000
"""Most bound values of one statement: SQLite takes 32,766, PostgreSQL 65,535."""
_UPSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Place(msgspec.Struct, frozen=True):
    """A database, and what of it. `shown` is the URL without its password."""

    url: str
    table: str
    query: str
    key: str
    shown: str


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
        own["key"],
        plain.render_as_string(),
    )


@contextmanager
def _errors(place: Place, what: str) -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        raise Unavailable(
            f"cannot {what} {place.shown}: {_first_line(error)}",
            hint="What was done is kept: resume the run.",
        ) from error
    except sa.exc.SQLAlchemyError as error:
        raise InvalidInput(f"cannot {what} {place.shown}: {_first_line(error)}") from error


def _first_line(error: sa.exc.SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def _engine(place: Place) -> sa.Engine:
    try:
        return sa.create_engine(place.url)
    except (ModuleNotFoundError, sa.exc.NoSuchModuleError) as error:
        raise MissingExtra(f"the driver of {place.shown} is not installed: {error}.") from error


class SqlSource:
    """A table or a query, in the order of its key."""

    def __init__(self, place: Place) -> None:
        if not place.key:
            raise InvalidInput(
                f"rows of {place.shown} are read in the order of a unique key, and none is named.",
                hint="Add &key=COLUMN to the URL.",
            )
        self._place = place
        self._engine = _engine(place)

    @property
    def _rows(self) -> sa.FromClause:
        place = self._place
        if place.query:
            return sa.text(f"({place.query.strip().rstrip(';')}) AS fairway_rows")  # type: ignore[return-value]
        schema, _, name = place.table.rpartition(".")
        return sa.table(name, schema=schema or None)

    def names(self) -> list[str]:
        with _errors(self._place, "read from"), self._engine.connect() as connection:
            found = connection.execute(sa.select(sa.text("*")).select_from(self._rows).limit(0))
            return list(found.keys())

    def count(self) -> int:
        """How many rows there are now."""
        with _errors(self._place, "read from"), self._engine.connect() as connection:
            found = connection.execute(sa.select(sa.func.count()).select_from(self._rows)).scalar()
            return int(found or 0)

    def every(self, rows: int) -> list[Any]:
        """The key of each `rows`-th row in the order of the key, by the database's own order of it."""
        key: sa.ColumnClause[Any] = sa.column(self._place.key)
        place = sa.func.row_number().over(order_by=key).label("fairway_place")
        placed = sa.select(key, place).select_from(self._rows).subquery("fairway_placed")
        wanted = sa.select(placed.c[self._place.key]).where(placed.c.fairway_place % rows == 0)
        with _errors(self._place, "read from"), self._engine.connect() as connection:
            found = connection.execute(wanted.order_by(placed.c.fairway_place))
            return [_plain_key(_plain(row[0])) for row in found]

    def pieces(self, start: Position, rows: int, stop: Any = None) -> Generator[Piece]:
        """Tables of about `rows` rows with a key above `start.key` and, unless it is None, not above `stop`. Raises
        MalformedInput where the key is null or not unique, Unavailable when the database is away."""
        key: sa.ColumnClause[Any] = sa.column(self._place.key)
        last = start.key
        with _errors(self._place, "read from"), self._engine.connect() as connection:
            nulls = sa.select(sa.func.count()).select_from(self._rows).where(key.is_(None))
            if last is None and connection.execute(nulls).scalar():
                raise MalformedInput(f"the key {self._place.key!r} is null in some rows.")
        while True:
            wanted = sa.select(sa.text("*")).select_from(self._rows).order_by(key).limit(rows + 1)
            if last is not None:
                wanted = wanted.where(key > last)
            if stop is not None:
                wanted = wanted.where(key <= stop)
            with _errors(self._place, "read from"), self._engine.connect() as connection:
                result = connection.execute(wanted)
                names = list(result.keys())
                found = result.fetchall()
            if not found:
                return
            place = names.index(self._place.key)
            keys = [row[place] for row in found]
            twice = next((a for a, b in pairwise(keys) if a == b), None)
            if twice is not None:
                raise MalformedInput(f"the key {self._place.key!r} is not unique: {twice!r} is there twice.")
            chunk = found[:rows]
            last = keys[len(chunk) - 1]
            columns = {name: [_plain(row[i]) for row in chunk] for i, name in enumerate(names)}
            yield Piece(columns, key=_plain_key(last))
            if len(found) <= rows:
                return

    def close(self) -> None:
        self._engine.dispose()


def _plain(value: Any) -> Any:
    if type(value).__name__ == "Decimal":
        return float(value)
    return str(value) if type(value).__name__ == "UUID" else value


def _plain_key(value: Any) -> Any:
    """A key as JSON keeps it: numbers and text as they are; others cannot be gone on from."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidInput(f"a key must be whole numbers or text, not {type(value).__name__}.")
    return value


class SqlSink:
    """A table. It is made if it is not there; with a key it may hold rows already, which are replaced by theirs."""

    def __init__(self, place: Place, run: str, scratch: Path) -> None:
        if place.query:
            raise InvalidInput("a sink is a table, not a query.", hint="Say ?table=NAME.")
        self._place, self._run, self._scratch = place, run, scratch
        self._engine = _engine(place)
        if place.key and self._engine.dialect.name not in _UPSERTS:
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
        with _errors(self._place, "write to"), self._engine.begin() as connection:
            if not sa.inspect(connection).has_table(self._name, self._schema):
                return
            table = sa.table(self._name, schema=self._schema)
            held = (
                connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None
            )
            if held and overwrite:
                connection.execute(sa.delete(table))
            elif held and not self._place.key:
                raise AlreadyExists(
                    f"the table {self._place.table} already holds rows, and without a key they cannot be replaced.",
                    hint="Name a key in the URL (&key=COLUMN), another table, or say --overwrite: that empties it.",
                )

    def begin(self, folder: str, name: str, schema: pa.Schema) -> _SqlPart:
        with _errors(self._place, "write to"):
            return _SqlPart(self, name, schema)

    def ready(self, schema: pa.Schema) -> sa.Table:
        """The table, made when it is not there. Raises InvalidInput when it lacks columns."""
        if self._table is None:
            flat = flat_table(schema.empty_table()).schema
            if self._place.key and self._place.key not in flat.names:
                raise InvalidInput(
                    f"the key {self._place.key!r} is not among the columns written: {', '.join(flat.names)}.",
                    hint=f"Add it: --keep {self._place.key}",
                )
            columns = [
                sa.Column(
                    f.name, _sql_type(f.type), primary_key=f.name == self._place.key, autoincrement=False
                )
                for f in flat
            ]
            table = sa.Table(self._name, self._metadata, *columns, schema=self._schema)
            self._metadata.create_all(self._engine)
            there = {
                column["name"] for column in sa.inspect(self._engine).get_columns(self._name, self._schema)
            }
            if not there >= set(flat.names):
                lacking = ", ".join(name for name in flat.names if name not in there)
                raise InvalidInput(f"the table {self._place.table} has no column {lacking}.")
            self._table = table
        return self._table

    def statement(self, rows: list[dict[str, Any]]) -> Any:
        assert self._table is not None, "ready comes first"
        key = self._place.key
        if not key:
            return sa.insert(self._table).values(rows)
        insert: Any = _UPSERTS[self._engine.dialect.name](self._table)
        insert = insert.values(rows)
        others = {name: insert.excluded[name] for name in rows[0] if name != key}
        return (
            insert.on_conflict_do_update(index_elements=[key], set_=others)
            if others
            else insert.on_conflict_do_nothing(index_elements=[key])
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
        marks = sink._marks.c
        self._mark = sa.select(marks.part).where(marks.run == sink._run, marks.part == name)

    def write(self, table: pa.Table) -> None:
        flat = without_nan(flat_table(table))
        for batch in flat.to_batches():
            self._digest.update(msgspec.json.encode(batch.to_pylist(), enc_hook=str))
        self._tables.append(flat)

    def commit(self) -> Written:
        """All in one transaction, as short as it can be: a source in the same database goes on reading meanwhile."""
        sink = self._sink
        written = Written(self._name, sum(table.nbytes for table in self._tables), self._digest.hexdigest())
        with _errors(sink._place, "write to"), sink._engine.begin() as connection:
            if connection.execute(self._mark).first() is not None:
                return written
            for table in self._tables:
                step = max(1, _PARAMETERS // max(1, table.num_columns))
                for batch in table.to_batches(step):
                    connection.execute(sink.statement(self._rows(batch)))
            marked = sa.insert(sink._marks).values(run=sink._run, part=self._name)
            connection.execute(marked)
        return written

    def _rows(self, batch: pa.RecordBatch) -> list[dict[str, Any]]:
        """Of several rows with one key the last, as rows written one after the other would leave it."""
        rows: list[dict[str, Any]] = batch.to_pylist()
        key = self._sink._place.key
        return list({row[key]: row for row in rows}.values()) if key else rows

    def abort(self) -> None:
        self._tables.clear()


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
