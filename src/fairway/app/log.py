"""The prediction log wired up: where it is, what it is asked, what is compacted and forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from fairway.core.clock import utc_text
from fairway.core.errors import InvalidInput, NotFound
from fairway.core.settings import LogSettings, Settings
from fairway.security.privacy import KEY_FIELD, open_vault, private_text
from fairway.stores.label_join import LabelJoin
from fairway.stores.log_archive import PREDICTIONS, Archive
from fairway.stores.log_compaction import Compacted, compact, forget
from fairway.stores.log_query import Limits, query
from fairway.stores.log_reading import PredictionLog, Present, rows_of


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that were removed, and segments that are still being written: what stands in those goes when they are closed
    and this is done again."""

    rows: int
    open_segments: int


def open_log(settings: Settings) -> PredictionLog:
    """The log of a home's settings, to read. Raises SettingsError or MissingExtra for an archive that is not there."""
    own = settings.log
    return PredictionLog(
        Path(own.folder_at(settings.home)), Archive(own.archive_at(settings.home), own.archive_options)
    )


def open_join(log: PredictionLog, model: str, settings: LogSettings) -> LabelJoin:
    return LabelJoin(log, model, label_days=settings.label_days, keep_days=settings.keep_days)


def compact_log(settings: Settings, *, everything: bool = False) -> Compacted:
    """Compacts what is due and applies retention: what the control process does every few minutes, and
    `fairway log compact` with `everything`."""
    return compact(open_log(settings), settings.log, everything=everything)


def known_models(log: PredictionLog) -> list[str]:
    """Names of the models that have rows in the log."""
    return [model for model in log.models() if not model.startswith("_")]


def present(settings: Settings, model: str | None = None) -> dict[str, list[Present]]:
    """By model, which versions are in the log, with their rows and times."""
    log = open_log(settings)
    return {name: log.present(name) for name in ([model] if model else known_models(log))}


@contextmanager
def ask(
    settings: Settings, sql: str, *, model: str | None = None, limits: Limits | None = None
) -> Iterator[pa.RecordBatchReader]:
    """The rows of a SELECT over one model's views or all."""
    log = open_log(settings)
    if model is not None and model not in log.models():
        raise NotFound(
            f"nothing of {model!r} is in the log; there is {', '.join(log.models()) or 'nothing'}."
        )
    with query(log, sql, models=None if model is None else [model], limits=limits) as rows:
        yield rows


def show_request(settings: Settings, request_id: str, *, reveal: bool = False) -> dict[str, Any]:
    """Everything that the log has about a request: its rows and every label that came. With `reveal`, tokens are
    opened. Raises NotFound."""
    log = open_log(settings)
    name = pa.scalar(request_id)
    rows: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for model in log.models():
        for batch in log.windows(model):
            hit = batch.filter(pc.fill_null(pc.equal(batch.column("request_id"), name), False))
            rows += [{"model": model, **_told(row)} for row in hit.to_pylist()]
        for batch in log.labels(model):
            hit = batch.filter(pc.fill_null(pc.equal(batch.column("request_id"), name), False))
            labels += [_told(row) for row in hit.to_pylist()]
    if not rows and not labels:
        raise NotFound(
            f"the log has no request {request_id!r}.", hint="It may not be in the sample, or too old."
        )
    if reveal:
        vault = open_vault(Path(settings.log.secret_at(settings.home)))
        for row in rows:
            for field, value in row.items():
                if isinstance(value, str) and value.startswith("fwt1."):
                    row[field] = vault.opened(
                        KEY_FIELD if field == "key" else field.removeprefix("input."), value
                    )
    rows.sort(key=lambda row: (str(row["time"]), row["row"]))
    labels.sort(key=lambda label: (str(label["time"]), str(label["received"])))
    return {"rows": rows, "labels": labels}


def forget_rows(
    settings: Settings, *, model: str | None, request_ids: Sequence[str], keys: Sequence[str]
) -> Forgotten:
    """Removes everything about these requests and keys: from the archive, from the state of the join, and from segments
    once they are closed."""
    if not request_ids and not keys:
        raise InvalidInput("say what is to be forgotten.", hint="Give --request or --key.")
    log = open_log(settings)
    how = settings.log.key_privacy
    if keys and how in ("hash", "token"):
        vault = open_vault(Path(settings.log.secret_at(settings.home)))
        keys = [text for key in keys if (text := private_text(vault, KEY_FIELD, key, how)) is not None]
    done = compact(log, settings.log, everything=True)
    if done.busy:
        raise InvalidInput("the log is being compacted.", hint="Try again in a minute.")
    rows = left = 0
    for name in [model] if model else log.models():
        removed, still = forget(log, name, request_ids=request_ids, keys=keys)
        rows, left = rows + removed, left + still
        if not name.startswith("_") and (log.folder / name / "join.db").exists():
            open_join(log, name, settings.log).forget(request_ids, keys)
    return Forgotten(rows=rows, open_segments=left)


def follow(settings: Settings, model: str, *, pause: float = 0.3) -> Iterator[list[dict[str, Any]]]:
    """New rows of a model on this machine as they are written, for ever."""
    log = open_log(settings)
    seen = {
        segment.path: sum(batch.num_rows for batch in rows_of(segment))
        for segment in log.segments(PREDICTIONS, model)
    }
    while True:
        fresh: list[dict[str, Any]] = []
        for segment in log.segments(PREDICTIONS, model):
            before, rows = seen.get(segment.path, 0), 0
            for batch in rows_of(segment):
                fresh += batch.slice(max(0, before - rows)).to_pylist()
                rows += batch.num_rows
            seen[segment.path] = max(rows, before)
        if fresh:
            yield [_told(row) for row in fresh]
        time.sleep(pause)


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """Times as text."""
    return {name: utc_text(value) if isinstance(value, datetime) else value for name, value in row.items()}
