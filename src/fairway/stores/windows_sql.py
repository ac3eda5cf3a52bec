"""Windows in SQLite or PostgreSQL, the same statements for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fairway.stores.schema import monitor_marks, monitor_windows
from fairway.stores.sql import SqlDatabase
from fairway.stores.windows import MOST_WINDOWS, WatchedWindow, WindowKey

_c = monitor_windows.c
_ORDER = (_c.start, _c.version, _c.digest)
_SMALL = (_c.model, _c.version, _c.digest, _c.start, _c.end, _c.rows, _c.summary)


class SqlWindows:
    """Safe from any thread."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    @property
    def where(self) -> str:
        return self._database.where

    def put(self, windows: Sequence[WatchedWindow]) -> None:
        with self._database.transaction(writing=True) as connection:
            for window in sorted(windows, key=lambda window: msgspec.structs.astuple(window.key)):
                _put(connection, monitor_windows, _row(window))

    def summaries(
        self,
        model: str,
        *,
        version: int | None = None,
        since: str = "",
        until: str = "",
        limit: int = MOST_WINDOWS,
    ) -> tuple[WatchedWindow, ...]:
        query = sa.select(*_SMALL).where(*_within(model, version, since, until))
        with self._database.transaction(writing=False) as connection:
            found = connection.execute(query.order_by(*(c.desc() for c in _ORDER)).limit(limit)).all()
        return tuple(_window(row) for row in reversed(found))

    def window(self, key: WindowKey) -> WatchedWindow | None:
        return self._one(sa.select(monitor_windows).where(*_is(key)))

    def latest(self, model: str, version: int | None = None) -> WatchedWindow | None:
        query = sa.select(monitor_windows).where(*_within(model, version, "", ""))
        return self._one(query.order_by(*(c.desc() for c in _ORDER)).limit(1))

    def profiles(
        self, model: str, *, version: int, since: str, until: str, limit: int = MOST_WINDOWS
    ) -> tuple[tuple[str, bytes], ...]:
        query = sa.select(_c.start, _c.profile).where(
            *_within(model, version, since, until), _c.profile != b""
        )
        with self._database.transaction(writing=False) as connection:
            found = connection.execute(query.order_by(*(c.desc() for c in _ORDER)).limit(limit)).all()
        return tuple((start, bytes(profile)) for start, profile in reversed(found))

    def watched(self, *, until: str = "") -> tuple[WindowKey, ...]:
        version = (_c.model, _c.version, _c.digest)
        query = sa.select(*version, sa.func.max(_c.start)).group_by(*version).order_by(*version)
        query = query.where(_c.start < until) if until else query
        with self._database.transaction(writing=False) as connection:
            found = connection.execute(query).all()
        return tuple(WindowKey(model=m, version=v, digest=d, start=s) for m, v, d, s in found)

    def mark(self, name: str) -> str:
        query = sa.select(monitor_marks.c.value).where(monitor_marks.c.name == name)
        with self._database.transaction(writing=False) as connection:
            return str(connection.execute(query).scalar() or "")

    def put_mark(self, name: str, value: str) -> None:
        with self._database.transaction(writing=True) as connection:
            _put(connection, monitor_marks, {"name": name, "value": value})

    def prune(self, before: str) -> int:
        with self._database.transaction(writing=True) as connection:
            return int(connection.execute(sa.delete(monitor_windows).where(_c.start < before)).rowcount)

    def close(self) -> None:
        self._database.close()

    def _one(self, query: sa.Select[Any]) -> WatchedWindow | None:
        with self._database.transaction(writing=False) as connection:
            row = connection.execute(query).first()
        return None if row is None else _window(row)


def _put(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
    """In one statement: another process may put the same row in the same moment."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    keys = [column.name for column in table.primary_key]
    statement = insert(table).values(row)
    changed = {name: statement.excluded[name] for name in row if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))


def _is(key: WindowKey) -> tuple[sa.ColumnElement[bool], ...]:
    return (_c.model == key.model, _c.version == key.version, _c.digest == key.digest, _c.start == key.start)


def _within(model: str, version: int | None, since: str, until: str) -> list[sa.ColumnElement[bool]]:
    chosen = [_c.model == model, _c.start >= since]
    if version is not None:
        chosen.append(_c.version == version)
    if until:
        chosen.append(_c.start < until)
    return chosen


def _row(window: WatchedWindow) -> dict[str, Any]:
    key = window.key
    return {
        "model": key.model,
        "version": key.version,
        "digest": key.digest,
        "start": key.start,
        "end": window.end,
        "rows": window.rows,
        "summary": window.summary,
        "report": window.report,
        "profile": window.profile,
    }


def _window(row: Any) -> WatchedWindow:
    """By place, in the order of the table: thousands are read at once."""
    model, version, digest, start, end, rows, summary, *large = row
    report, profile = large or (b"", b"")
    return WatchedWindow(
        key=WindowKey(model=model, version=version, digest=digest, start=start),
        end=end,
        rows=rows,
        summary=bytes(summary),
        report=bytes(report),
        profile=bytes(profile),
    )
