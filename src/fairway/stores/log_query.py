"""SQL over the prediction log, by DuckDB: segments and Parquet alike, and nothing else.

Views: `predictions` (every row), `labels` (the label that counts, by request or key and row), `label_history` (every label
that came) and `labelled` (predictions with their label), of one model or of all; `"payments".predictions` and so on for
each. The connection reads what it was given and no more: no files, no network, no extensions, no settings, SELECT only.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from fairway.core.errors import DeadlineExceeded, InvalidInput, MissingExtra
from fairway.stores.log_archive import LABELS, PREDICTIONS, Part
from fairway.stores.log_reading import PredictionLog, Snapshot, rows_of

_MOMENT = pa.timestamp("us", tz="UTC")
_NOTHING = {
    PREDICTIONS: pa.schema(
        [
            ("time", _MOMENT), ("request_id", pa.string()), ("row", pa.int32()), ("version", pa.int32()),
            ("digest", pa.string()), ("arm", pa.string()), ("source", pa.string()), ("protocol", pa.string()),
            ("caller", pa.string()), ("key", pa.string()), ("seconds", pa.float32()), ("writer", pa.string()),
            ("sample", pa.float32()), ("violations", pa.string()),
        ]
    ),
    LABELS: pa.schema(
        [
            ("request_id", pa.string()), ("key", pa.string()), ("label", pa.string()), ("caller", pa.string()),
            ("row", pa.int32()), ("time", _MOMENT), ("received", _MOMENT),
        ]
    ),
}  # fmt: skip
_LATEST = """
select * from {history} qualify row_number() over (
  partition by request_id, key, row order by time desc, received desc, label desc) = 1"""
_LABELLED = """
with told as (
  select model, request_id, row, label, time as label_time, received as label_received
    from {history} where request_id is not null
  union all
  select p.model, p.request_id, p.row, l.label, l.time, l.received from {history} l
    asof join (select * from {predictions} where key is not null) p on l.key = p.key and l.time >= p.time
    where l.request_id is null),
counts as (
  select * from told qualify row_number() over (
    partition by request_id, row order by label_time desc, label_received desc, label desc) = 1),
newest as (
  select * from {predictions} qualify row_number() over (partition by request_id, row order by time desc) = 1)
select newest.*, counts.label, counts.label_time, counts.label_received
  from newest join counts on newest.request_id = counts.request_id and newest.row = counts.row"""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one query may take."""

    memory_bytes: int = 1024**3
    seconds: float = 60.0
    threads: int = 2


@contextmanager
def query(
    log: PredictionLog, sql: str, *, models: Sequence[str] | None = None, limits: Limits | None = None
) -> Iterator[pa.RecordBatchReader]:
    """The rows of a SELECT, as they come. `models` are those that `predictions` and the other views have; None for all.

    Raises InvalidInput for what cannot be run or may not be, DeadlineExceeded when it takes too long.
    """
    try:
        # Needs the extra `monitor`.
        import duckdb
    except ImportError as error:
        raise MissingExtra(
            "SQL over the log needs DuckDB.", hint="Install it with: pip install 'fairway[monitor]'"
        ) from error
    limits = limits or Limits()
    with ExitStack() as held:
        scratch = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="fairway-query-")))
        connection = duckdb.connect(
            ":memory:",
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "temp_directory": "",
                "memory_limit": f"{limits.memory_bytes // 2**20}MiB",
                "threads": str(limits.threads),
            },
        )
        held.callback(connection.close)
        _make_views(connection, log, log.models() if models is None else models, scratch)
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        late = threading.Event()

        def stop() -> None:
            late.set()
            connection.interrupt()

        timer = threading.Timer(limits.seconds, stop)
        timer.daemon = True
        held.callback(timer.cancel)
        try:
            statements = connection.extract_statements(sql)
            kinds = [statement.type.name for statement in statements]
            if len(kinds) != 1 or kinds[0] not in ("SELECT", "EXPLAIN"):
                raise InvalidInput(f"one SELECT can be run here, not {', '.join(kinds) or 'nothing'}.")
            timer.start()
            yield connection.sql(sql).to_arrow_reader(10_000)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if late.is_set():
                raise DeadlineExceeded(
                    f"the query was stopped after {limits.seconds:g} s.",
                    hint="Give it longer with --seconds.",
                ) from error
            if isinstance(error, duckdb.OutOfMemoryException):
                raise InvalidInput(
                    f"the query needs more than {limits.memory_bytes // 2**20} MiB.", hint="Raise --memory."
                ) from error
            raise InvalidInput(f"the query cannot be run: {error}") from error


def _make_views(connection: Any, log: PredictionLog, models: Sequence[str], scratch: Path) -> None:
    sources: dict[str, list[str]] = {PREDICTIONS: [], LABELS: []}
    serial = 0
    for model in models:
        connection.execute(f"create schema {_name(model)}")
        for kind, view in ((PREDICTIONS, "predictions"), (LABELS, "label_history")):
            selects = []
            with log.snapshot(kind, model) as snapshot:
                for dataset in [*_parts(log, snapshot.parts), *_segments(snapshot, scratch)]:
                    serial += 1
                    connection.register(f"source_{serial}", dataset)
                    selects.append(_select(kind, model, f"main.source_{serial}"))
            serial += 1
            connection.register(f"source_{serial}", _NOTHING[kind].empty_table())
            selects.append(_select(kind, model, f"main.source_{serial}"))
            sources[kind] += selects
            connection.execute(f"create view {_name(model)}.{view} as {' union all by name '.join(selects)}")
        _make_label_views(connection, _name(model))
    for kind, view in ((PREDICTIONS, "predictions"), (LABELS, "label_history")):
        serial += 1
        connection.register(f"source_{serial}", _NOTHING[kind].empty_table())
        selects = [*sources[kind], _select(kind, "", f"main.source_{serial}")]
        connection.execute(f"create view main.{view} as {' union all by name '.join(selects)}")
    _make_label_views(connection, "main")


def _make_label_views(connection: Any, schema: str) -> None:
    names = {"history": f"{schema}.label_history", "predictions": f"{schema}.predictions"}
    for view, text in (("labels", _LATEST), ("labelled", _LABELLED)):
        connection.execute(f"create view {schema}.{view} as {text.format(**names)}")


def _select(kind: str, model: str, source: str) -> str:
    """A label is JSON on disk; here a text is told without its quotes."""
    named = f"'{model}' as model"
    if kind == LABELS:
        return f"select {named}, * replace (label ->> '$' as label) from {source}"  # noqa: S608 - a name of a model holds no quotes
    return f"select {named}, * from {source}"  # noqa: S608


def _parts(log: PredictionLog, parts: Sequence[Part]) -> Iterator[ds.Dataset]:
    """Parts with the same columns as one dataset: then one footer tells the columns of all."""
    groups: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.stream, part.columns), []).append(part)
    filesystem = log.archive.filesystem
    for group in groups.values():
        paths = [log.archive.place(part) for part in group]
        schema = pq.read_schema(paths[0], filesystem=filesystem).remove_metadata()
        yield ds.dataset(paths, schema=schema, format="parquet", filesystem=filesystem)


def _segments(snapshot: Snapshot, scratch: Path) -> Iterator[ds.Dataset]:
    """What is not compacted yet, as Parquet for the time of the query: it can be read several times over, in bounded
    memory."""
    writers: dict[str, pq.ParquetWriter] = {}
    paths: dict[str, str] = {}
    for segment in snapshot.segments:
        for batch in rows_of(segment, snapshot.covered):
            plain = pa.RecordBatch.from_arrays(batch.columns, names=batch.schema.names)
            shape = str(plain.schema)
            if shape not in writers:
                paths[shape] = str(scratch / f"{segment.model}-{segment.kind}-{len(writers)}.parquet")
                writers[shape] = pq.ParquetWriter(paths[shape], plain.schema)
            writers[shape].write_batch(plain)
    for shape, writer in writers.items():
        writer.close()
        yield ds.dataset(paths[shape], format="parquet")


def _name(model: str) -> str:
    return '"' + model.replace('"', '""') + '"'
