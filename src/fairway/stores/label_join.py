"""Predictions and labels joined, step by step as either of them comes.

A label for a request belongs to the newest prediction of that request id and row; a label for a key to the newest
prediction of that key that was made up to the label's time. Of several labels for one prediction the one with the latest
time counts (then the one that came later). None of this depends on the order in which things arrive, on how often they
arrive, or on whether they have been compacted since.

What is kept is small: the labels, each with the time of the prediction that it belongs to, if that has turned up. A step
looks for the predictions of new labels, newest files first, and for the labels of new predictions. Windows of time (by
when was predicted) whose labels have changed get a new sequence number: `changed` gives those since a watermark.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from fairway.core.clock import Clock, trusted
from fairway.core.errors import FairwayError, Unavailable
from fairway.core.label import ANY_MODEL
from fairway.stores.log_archive import LABELS, PREDICTIONS
from fairway.stores.log_reading import PredictionLog, Segment, micros, moment, rows_of

WINDOW_SECONDS = 3600
_WINDOW = WINDOW_SECONDS * 1_000_000
_LABELS_AT_ONCE = 100_000
_PREDICTIONS_AT_ONCE = 1_000_000
_PAIRS_AT_ONCE = 500_000
_SEEK = ("request_id", "row", "time", "key")
_SCHEMA = """
create table if not exists request_labels (
  request_id text not null, row integer not null, label text not null, time integer not null,
  received integer not null, caller text not null, at integer, primary key (request_id, row)) without rowid;
create index if not exists request_labels_at on request_labels (at);
create table if not exists key_labels (
  key text not null, time integer not null, label text not null, received integer not null, caller text not null,
  at integer, request_id text, row integer, primary key (key, time)) without rowid;
create index if not exists key_labels_at on key_labels (at);
create table if not exists seen (name text primary key, rows integer not null) without rowid;
create table if not exists windows (start integer primary key, sequence integer not null);
create index if not exists windows_sequence on windows (sequence);
create table if not exists clock (one integer primary key check (one = 1), seen real not null, odd_since real not null);
"""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """How labels stand after a step. `unknown` wait for their prediction; `expired` have waited too long."""

    labels: int
    matched: int
    unknown: int
    expired: int = 0


class LabelJoin:
    """The join of one model, with its state in `<log>/<model>/join.db`. One process steps at a time; it is safe to kill,
    and to delete the state: it is then made anew from the log."""

    def __init__(
        self,
        log: PredictionLog,
        model: str,
        *,
        label_days: float = 90.0,
        keep_days: float = 90.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._model = model
        self._label_days = label_days
        self._keep_days = keep_days
        self._clock = clock
        self._path = log.folder / model / "join.db"

    def step(self) -> Joined:
        """Takes in what has come since the last step. What is done is kept on the way: killed, the next step goes on from
        there."""
        with self._state() as state, state:
            self._begin(state)
            for kept in self._new_labels(state):
                self._match_labels(state, kept)
                self._keep(state)
            self._new_predictions(state)
            return self._tidy(state)

    def _begin(self, state: sqlite3.Connection) -> None:
        state.execute("begin immediate")
        self._sequence = self.watermark_of(state) + 1

    def _keep(self, state: sqlite3.Connection) -> None:
        """What is taken in once more changes nothing, so a file is marked as seen only at its end. Windows that change
        after this have a new sequence number, as somebody may have read those before."""
        state.execute("commit")
        self._begin(state)

    def changed(self, since: int = 0) -> tuple[list[datetime], int]:
        """The windows (their starts, UTC; `WINDOW_SECONDS` long) whose joined rows have changed since a watermark, and
        the next watermark. 0 gives all windows that have labels."""
        with self._state() as state:
            rows = state.execute("select start from windows where sequence > ? order by start", (since,))
            starts = [moment(start * _WINDOW) for (start,) in rows]
            return starts, max(since, self.watermark_of(state))

    def joined(
        self, start: datetime, end: datetime, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Predictions made in `start <= time < end` that have a label, with it: `label` (JSON), `label_time` and
        `label_received`. `columns` are those of the log to give; None for all."""
        low, high = micros(start), micros(end)
        with self._state() as state:
            many = state.execute(
                "select (select count(*) from request_labels where at >= ? and at < ?)"
                " + (select count(*) from key_labels where at >= ? and at < ?)",
                (low, high, low, high),
            ).fetchone()[0]
            pairs = {} if many > _PAIRS_AT_ONCE and high - low > 1 else self._pairs(state, low, high)
        if not pairs and many:
            half = moment((low + high) // 2)
            yield from self.joined(start, half, columns)
            yield from self.joined(half, end, columns)
        elif pairs:
            yield from self._with_labels(start, end, columns, pairs)

    def forget(self, request_ids: Sequence[str], keys: Sequence[str]) -> None:
        """Removes the labels of these requests and keys from the state."""
        with self._state() as state, state:
            state.executemany("delete from request_labels where request_id = ?", [(i,) for i in request_ids])
            state.executemany("delete from key_labels where request_id = ?", [(i,) for i in request_ids])
            state.executemany("delete from key_labels where key = ?", [(k,) for k in keys])

    def standing(self) -> Joined:
        """How labels stand, without taking anything in."""
        with self._state() as state:
            return self._counts(state)

    @staticmethod
    def watermark_of(state: sqlite3.Connection) -> int:
        return int(state.execute("select coalesce(max(sequence), 0) from windows").fetchone()[0])

    @contextmanager
    def _state(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=30.0, isolation_level=None)) as state:
                state.execute("pragma journal_mode = wal")
                state.execute("pragma secure_delete = on")  # what is forgotten is not left in the file
                state.executescript(_SCHEMA)
                yield state
        except FairwayError:
            raise
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(
                f"the join of labels at {self._path} cannot be used: {error}.",
                hint="If it is damaged, delete it: it is made anew from the log.",
            ) from error

    def _new_labels(
        self, state: sqlite3.Connection
    ) -> Iterator[tuple[set[tuple[str, int]], set[tuple[str, int]]]]:
        """Takes in labels that were not seen yet; gives those that are new to the join, some at a time: (request, row)
        and (key, time)."""
        requests: set[tuple[str, int]] = set()
        keys: set[tuple[str, int]] = set()
        for model in (self._model, ANY_MODEL):
            for batch in self._unseen(state, LABELS, model, None):
                self._take_in(state, batch, requests, keys)
                if len(requests) + len(keys) >= _LABELS_AT_ONCE:
                    yield requests, keys
                    requests, keys = set(), set()
        yield requests, keys

    def _take_in(
        self,
        state: sqlite3.Connection,
        batch: pa.RecordBatch,
        requests: set[tuple[str, int]],
        keys: set[tuple[str, int]],
    ) -> None:
        fields = ("request_id", "key", "row", "label", "caller")
        columns = [batch.column(name).to_pylist() for name in fields]
        times = [batch.column(name).cast(pa.int64()).to_pylist() for name in ("time", "received")]
        for request_id, key, row, label, caller, when, received in zip(*columns, *times, strict=True):
            if request_id is not None:
                found = state.execute(
                    "insert into request_labels values (?, ?, ?, ?, ?, ?, null) on conflict do update set"
                    " label = excluded.label, time = excluded.time, received = excluded.received,"
                    " caller = excluded.caller where (excluded.time, excluded.received, excluded.label)"
                    " > (time, received, label) returning at",
                    (request_id, row, label, when, received, caller),
                ).fetchone()
                if found is not None and found[0] is None:
                    requests.add((request_id, row))
                elif found is not None:
                    self._touch(state, found[0])
            elif key is not None:
                found = state.execute(
                    "insert into key_labels values (?, ?, ?, ?, ?, null, null, null) on conflict do update set"
                    " label = excluded.label, received = excluded.received, caller = excluded.caller"
                    " where (excluded.received, excluded.label) > (received, label) returning at",
                    (key, when, label, received, caller),
                ).fetchone()
                if found is not None and found[0] is None:
                    keys.add((key, when))
                elif found is not None:
                    self._touch(state, found[0])

    def _match_labels(
        self, state: sqlite3.Connection, wanted: tuple[set[tuple[str, int]], set[tuple[str, int]]]
    ) -> None:
        """Looks for the predictions of labels, in files with the newest rows first, until no older file can matter."""
        requests, keys = wanted
        if not requests and not keys:
            return
        names = pa.array(sorted({name for name, _ in requests}), pa.string())
        key_names = pa.array(sorted({key for key, _ in keys}), pa.string())
        with self._log.snapshot(PREDICTIONS, self._model) as snapshot:
            for segment in snapshot.segments:
                for batch in rows_of(segment, None, _SEEK):
                    self._meet(state, batch, names, key_names)
        for part in sorted(snapshot.parts, key=lambda part: part.last, reverse=True):
            if self._all_newer(state, requests, keys, part.last):
                return
            for batch in self._log.part_rows(part, _SEEK):
                self._meet(state, batch, names, key_names)

    def _all_newer(
        self,
        state: sqlite3.Connection,
        requests: set[tuple[str, int]],
        keys: set[tuple[str, int]],
        last: int,
    ) -> bool:
        """Whether every label has a prediction that is newer than all that are left to look at."""
        ask = "select at from request_labels where request_id = ? and row = ?"
        for one in list(requests):
            at = state.execute(ask, one).fetchone()[0]
            if at is None or at <= last:
                return False
            requests.discard(one)
        for one in list(keys):
            at = state.execute("select at from key_labels where key = ? and time = ?", one).fetchone()[0]
            if at is None or at <= last:
                return False
            keys.discard(one)
        return True

    def _new_predictions(self, state: sqlite3.Connection) -> None:
        """Looks for the labels of predictions that were not seen yet."""
        any_requests = state.execute("select 1 from request_labels limit 1").fetchone() is not None
        any_keys = state.execute("select 1 from key_labels limit 1").fetchone() is not None
        state.execute("create temp table if not exists asked (name text)")
        rows = 0
        for batch in self._unseen(state, PREDICTIONS, self._model, _SEEK):
            names = self._known(state, batch, "request_id", "request_labels") if any_requests else None
            keys = self._known(state, batch, "key", "key_labels") if any_keys else None
            self._meet(state, batch, names, keys)
            rows += batch.num_rows
            if rows >= _PREDICTIONS_AT_ONCE:
                self._keep(state)
                rows = 0

    def _known(
        self, state: sqlite3.Connection, batch: pa.RecordBatch, column: str, table: str
    ) -> pa.Array | None:
        """Which values of a column have labels."""
        if column not in batch.schema.names:
            return None
        values = pc.unique(batch.column(column).drop_null()).to_pylist()
        if not values:
            return None
        state.execute("delete from asked")
        state.executemany("insert into asked values (?)", [(value,) for value in values])
        found = state.execute(
            f"select distinct name from asked where exists (select 1 from {table} where {column} = name)"  # noqa: S608 - names of our own
        )
        return pa.array([name for (name,) in found], pa.string())

    def _meet(
        self, state: sqlite3.Connection, batch: pa.RecordBatch, names: pa.Array | None, keys: pa.Array | None
    ) -> None:
        """Gives predictions to the labels of these requests and keys, where they have no newer one."""
        for column, wanted, give in (
            ("request_id", names, self._give_request),
            ("key", keys, self._give_key),
        ):
            if wanted is None or not len(wanted) or column not in batch.schema.names:
                continue
            hit = batch.filter(pc.is_in(batch.column(column), value_set=wanted))
            times = hit.column("time").cast(pa.int64()).to_pylist()
            rows, ids = hit.column("row").to_pylist(), hit.column("request_id").to_pylist()
            values = hit.column(column).to_pylist()
            for value, request_id, row, at in zip(values, ids, rows, times, strict=True):
                give(state, value, request_id, row, at)

    def _give_request(self, state: sqlite3.Connection, _: str, request_id: str, row: int, at: int) -> None:
        found = state.execute(
            "select at from request_labels where request_id = ? and row = ?", (request_id, row)
        ).fetchone()
        if found is None or (found[0] is not None and found[0] >= at):
            return
        state.execute(
            "update request_labels set at = ? where request_id = ? and row = ?", (at, request_id, row)
        )
        self._touch(state, found[0], at)

    def _give_key(self, state: sqlite3.Connection, key: str, request_id: str, row: int, at: int) -> None:
        better = state.execute(
            "select time, at from key_labels where key = ? and time >= ?"
            " and (at is null or (at, request_id, row) < (?, ?, ?))",
            (key, at, at, request_id, row),
        ).fetchall()
        for when, before in better:
            state.execute(
                "update key_labels set at = ?, request_id = ?, row = ? where key = ? and time = ?",
                (at, request_id, row, key, when),
            )
            self._touch(state, before, at)

    def _touch(self, state: sqlite3.Connection, *times: int | None) -> None:
        """The windows of these times have changed."""
        for at in times:
            if at is not None:
                state.execute(
                    "insert into windows values (?, ?) on conflict do update set sequence = excluded.sequence",
                    (at // _WINDOW, self._sequence),
                )

    def _unseen(
        self, state: sqlite3.Connection, kind: str, model: str, columns: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """Rows that no step has read. Those of a segment come again when it is compacted, which changes nothing."""
        seen: dict[str, int] = dict(state.execute("select name, rows from seen").fetchall())
        present: set[str] = set()
        with self._log.snapshot(kind, model) as snapshot:
            for segment in snapshot.segments:
                name = _segment_name(segment)
                present.add(name)
                before, rows = seen.get(name, 0), 0
                for batch in rows_of(segment, None, columns):
                    fresh = batch.slice(max(0, before - rows))
                    rows += batch.num_rows
                    if fresh.num_rows:
                        yield fresh
                if rows > before:
                    state.execute("insert or replace into seen values (?, ?)", (name, rows))
        for part in snapshot.parts:
            present.add(part.path)
            if part.path not in seen:
                yield from self._log.part_rows(part, columns)
                state.execute("insert or replace into seen values (?, ?)", (part.path, part.rows))
        gone = [name for name in seen if name not in present and _belongs(name, kind, model)]
        state.executemany("delete from seen where name = ?", [(name,) for name in gone])

    def _tidy(self, state: sqlite3.Connection) -> Joined:
        """Lets labels go that have waited too long, and those whose predictions are not kept any more; none while the clock
        cannot be trusted."""
        now = self._clock()
        before = state.execute("select seen, odd_since from clock").fetchone()
        seen, sure = trusted(Clock(*before) if before else Clock(), now)
        state.execute("insert or replace into clock values (1, ?, ?)", (seen.seen, seen.odd_since))
        if not sure:
            return self._counts(state)
        old = int((now - self._label_days * 86_400) * 1e6)
        expired = 0
        for table in ("request_labels", "key_labels"):
            gone = state.execute(
                f"delete from {table} where at is null and max(received, time) < ?",  # noqa: S608 - names of our own
                (old,),
            )
            expired += gone.rowcount
            limit = int((now - self._keep_days * 86_400) * 1e6)
            state.execute(f"delete from {table} where at < ? and received < ?", (limit, limit))  # noqa: S608
        return msgspec.structs.replace(self._counts(state), expired=expired)

    def _counts(self, state: sqlite3.Connection) -> Joined:
        counts = "select count(*), count(at) from "
        requests = state.execute(counts + "request_labels").fetchone()
        keys = state.execute(counts + "key_labels").fetchone()
        labels, matched = requests[0] + keys[0], requests[1] + keys[1]
        return Joined(labels=labels, matched=matched, unknown=labels - matched)

    def _pairs(
        self, state: sqlite3.Connection, low: int, high: int
    ) -> dict[tuple[str, int, int], tuple[int, int, str]]:
        """By prediction (request, row, time), the label that counts: its time, when it came, its value."""
        pairs: dict[tuple[str, int, int], tuple[int, int, str]] = {}
        for table in ("request_labels", "key_labels"):
            found = state.execute(
                f"select request_id, row, at, time, received, label from {table} where at >= ? and at < ?",  # noqa: S608 - names of our own
                (low, high),
            )
            for request_id, row, at, when, received, label in found:
                key, value = (request_id, row, at), (when, received, label)
                if key not in pairs or value > pairs[key]:
                    pairs[key] = value
        return pairs

    def _with_labels(
        self,
        start: datetime,
        end: datetime,
        columns: Sequence[str] | None,
        pairs: dict[tuple[str, int, int], tuple[int, int, str]],
    ) -> Iterator[pa.RecordBatch]:
        names = pa.array(sorted({request_id for request_id, _, _ in pairs}), pa.string())
        needed = None if columns is None else [*dict.fromkeys([*columns, "request_id", "row", "time"])]
        for batch in self._log.windows(self._model, start=start, end=end, columns=needed):
            hit = batch.filter(pc.is_in(batch.column("request_id"), value_set=names))
            where: list[Any] = [hit.column(name).to_pylist() for name in ("request_id", "row")]
            times = hit.column("time").cast(pa.int64()).to_pylist()
            found = [pairs.get(key) for key in zip(*where, times, strict=True)]
            if not any(found):
                continue
            kept = hit.filter(pa.array([one is not None for one in found]))
            labels = [one for one in found if one is not None]
            moments = pa.timestamp("us", tz="UTC")
            arrays = {name: kept.column(name) for name in (columns or kept.schema.names)}
            arrays["label"] = pa.array([label for _, _, label in labels], pa.string())
            arrays["label_time"] = pa.array([when for when, _, _ in labels], pa.int64()).cast(moments)
            arrays["label_received"] = pa.array([came for _, came, _ in labels], pa.int64()).cast(moments)
            yield pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _segment_name(segment: Segment) -> str:
    return f"{segment.model}/{segment.stream}/{segment.path.name}"


def _belongs(name: str, kind: str, model: str) -> bool:
    """Whether a name in `seen` is of this kind and model."""
    if name.startswith(f"{kind}/model={model}/"):
        return True
    parts = name.split("/")
    return len(parts) == 3 and parts[0] == model and (parts[1] == LABELS) == (kind == LABELS)
