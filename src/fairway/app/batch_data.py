"""What a batch run reads and writes, by the URLs of its options: files by fsspec, tables by SQLAlchemy."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from fairway.app.home import Home
from fairway.batch.ledger import Ledger
from fairway.batch.plan import Options, Plan
from fairway.batch.report import Report
from fairway.batch.sink import Sink, open_file_sink
from fairway.batch.source import (
    Piece,
    Position,
    Reading,
    SourceFile,
    file_system,
    find_files,
    kept_schema,
    pieces,
)
from fairway.batch.sql import SqlSink, SqlSource, is_sql, read_place
from fairway.core.contract import Contract
from fairway.core.errors import Conflict, FairwayError, InvalidInput, MalformedInput


class _Files:
    def __init__(self, fs: Any, reading: Reading, contract: Contract) -> None:
        self._fs, self._reading, self._contract = fs, reading, contract

    def pieces(self, file: SourceFile, start: Position) -> Generator[Piece]:
        yield from pieces(self._fs, file, start, self._reading, self._contract)

    def close(self) -> None:
        return None


class _Rows:
    def __init__(self, source: SqlSource, rows: int) -> None:
        self._source, self._rows = source, rows

    def pieces(self, file: SourceFile, start: Position) -> Generator[Piece]:
        return self._source.pieces(start, self._rows)

    def close(self) -> None:
        self._source.close()


def find_input(place: Home, options: Options) -> list[SourceFile]:
    if is_sql(options.input):
        found = read_place(options.input)
        return [SourceFile(path=found.shown, format="sql")]
    fs, path = file_system(options.input, place.settings.batch.storage)
    return find_files(fs, path, format=options.input_format)


def open_source(place: Home, plan: Plan, contract: Contract) -> _Files | _Rows:
    if is_sql(plan.options.input):
        return _Rows(SqlSource(read_place(plan.options.input)), plan.reading.chunk_rows)
    fs, _ = file_system(plan.options.input, place.settings.batch.storage)
    return _Files(fs, plan.reading, contract)


def schema_of(
    place: Home, files: list[SourceFile], reading: Reading, contract: Contract, options: Options
) -> Any:
    """By the first file that can be read."""
    if is_sql(options.input):
        return _sql_schema(options, reading, contract)
    fs, _ = file_system(options.input, place.settings.batch.storage)
    first: FairwayError | None = None
    for file in files:
        try:
            return kept_schema(fs, file, reading, contract)
        except MalformedInput as error:
            first = first or MalformedInput(f"{file.path}: {error}")
    assert first is not None, "there are files"
    raise first


def _sql_schema(options: Options, reading: Reading, contract: Contract) -> Any:
    source = SqlSource(read_place(options.input))
    try:
        return source.kept_schema(contract, reading.kept, reading.chunk_rows)
    finally:
        source.close()


def open_sink(place: Home, options: Options, attempt: str, folder: Path, inputs: list[str]) -> Sink:
    """`attempt` is the plan's; any text will do where nothing is written."""
    if is_sql(options.output):
        if options.format or options.compression or options.file_bytes:
            raise InvalidInput("--format, --file-size and --compression are of files; a table has none.")
        return SqlSink(read_place(options.output), attempt, folder)
    fs, path = file_system(options.output, place.settings.batch.storage)
    if options.output.endswith("/") and not path.endswith("/"):
        path += "/"
    return open_file_sink(
        fs,
        path,
        format=options.format,
        scratch=folder / "parts",
        inputs=inputs,
        compression=options.compression,
    )


def is_flat(options: Options) -> bool:
    if is_sql(options.output):
        return True
    return (options.format or ("csv" if ".csv" in options.output.rpartition("/")[2] else "")) == "csv"


def check_unchanged(place: Home, ledger: Ledger, plan: Plan) -> None:
    """A run goes on only on the files that it began with. Raises Conflict."""
    if is_sql(plan.options.input):
        return
    now = {file.path: file for file in find_input(place, plan.options)}
    for record in ledger.files():
        if record.state != "done" and record.file.path in now and now[record.file.path] != record.file:
            raise Conflict(
                f"{record.file.path} has changed since the run began.",
                hint="Start it anew with `fairway batch run`.",
            )


def is_there(options: Options, report: Report, place: Home) -> bool:
    """Whether anything is left of what the run has written."""
    if is_sql(options.output):
        sink = SqlSink(read_place(options.output), "", place.path)
        try:
            return not report.scored or sink.holds_rows()
        finally:
            sink.close()
    fs, path = file_system(options.output, place.settings.batch.storage)
    return bool(fs.exists(path))
