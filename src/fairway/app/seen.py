"""What monitors saw, to read: `fairway monitor list|show|report`. None of what looking needs is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from fairway.app.home import Home
from fairway.control.report.gathered import Gathered, gather
from fairway.control.report.page import render
from fairway.control.web.dashboard.seen import Summary, ranked, report_in, summary_in
from fairway.core.clock import moment_of, utc_now, utc_text
from fairway.core.errors import InvalidInput, ModelNotFound, NotFound
from fairway.core.incident import Incident
from fairway.core.settings import Settings
from fairway.monitoring.watch.values import Report
from fairway.stores.disk import write_whole
from fairway.stores.opening import open_alerts, open_windows
from fairway.stores.windows import MOST_WINDOWS, WindowStore

_INCIDENTS = 200
_RECENT = 200
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_HINT = "Write 2026-11-01, a time with a zone, or how long ago: 90m, 12h, 7d."


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A version's last window, and how many incidents of it are open."""

    model: str
    version: int
    start: str
    end: str
    rows: int
    drifted: tuple[str, ...]
    labels: int
    incidents: int
    state: str


def watched(settings: Settings) -> tuple[Watched, ...]:
    """Every version that was looked at, by name."""
    with _opened(settings) as (_, windows, incidents):
        found = []
        for key in windows.watched(until=utc_now()):
            window = windows.window(key)
            summary = None if window is None else summary_in(window)
            if window is None or summary is None:
                continue
            opened = [
                incident
                for incident in incidents
                if incident.state == "open"
                and incident.model == key.model
                and incident.version in (0, key.version)
            ]
            found.append(
                Watched(
                    model=key.model,
                    version=key.version,
                    start=key.start,
                    end=window.end,
                    rows=summary.rows,
                    drifted=summary.drifted,
                    labels=summary.labels,
                    incidents=len(opened),
                    state=_state(summary, len(opened)),
                )
            )
    return tuple(found)


def _state(summary: Summary, incidents: int) -> str:
    if incidents:
        return "incident"
    if summary.rows == 0:
        return "no traffic"
    return "drifted" if summary.drifted else "fine"


def show(settings: Settings, model: str, *, version: int | None = None, start: str = "") -> Report:
    """A window in full: the one that begins at `start`, else the last one with rows; its columns by how much they matter. ModelNotFound, NotFound, InvalidInput."""
    with _opened(settings) as (home, windows, _):
        _check(home, model)
        begin = when(start) if start else ""
        if begin:
            found = windows.summaries(model, version=version, since=begin, until=utc_text(_later(begin)))
            window = windows.window(found[-1].key) if found else None
        else:
            seen = windows.summaries(model, version=version, until=utc_now(), limit=_RECENT)
            latest = next((one for one in reversed(seen) if one.rows), seen[-1] if seen else None)
            window = None if latest is None else windows.window(latest.key)
        report = report_in(window)
    if report is None:
        of = f"{model}:{version}" if version else model
        raise NotFound(
            f"no window of {of} that begins at {begin} was looked at."
            if begin
            else f"no window of {of} was looked at.",
            hint="The control process looks at windows once they are over; `fairway monitor look` does it now.",
        )
    return msgspec.structs.replace(report, columns=ranked(report))


def gathered(
    settings: Settings, model: str, *, version: int | None = None, since: str = "", until: str = ""
) -> Gathered:
    """What a report tells. ModelNotFound, NotFound, InvalidInput."""
    with _opened(settings, model) as (home, windows, incidents):
        _check(home, model)
        return gather(
            windows,
            incidents,
            model,
            version,
            since=when(since) if since else "",
            until=when(until) if until else "",
            limit=MOST_WINDOWS if since else 168,
            made=utc_now(),
        )


def write_report(told: Gathered, path: Path) -> int:
    """The file; returns its bytes. What was there before is there whole until the new one is."""
    content = render(told).encode()
    if not path.parent.is_dir():
        raise InvalidInput(f"{path.parent} is not a folder.", hint="Make it first.")
    write_whole(path, content)
    return len(content)


def when(text: str) -> str:
    """A time as it is kept, from a date, a time, or how long ago. InvalidInput."""
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isdecimal() and len(number) < 7:
        return utc_text(datetime.now(UTC) - timedelta(seconds=int(number) * _UNITS[unit]))
    try:
        moment = datetime.fromisoformat(text)
        return utc_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{text[:60]!r} is not a time: {error}.", hint=_HINT) from error


def _later(text: str) -> datetime:
    return moment_of(text) + timedelta(microseconds=1)


def _check(home: Home, model: str) -> None:
    if not any(known.name == model for known in home.registry.models()):
        raise ModelNotFound(f"There is no model {model[:100]!r}.", hint="See them with: fairway models")


@contextmanager
def _opened(
    settings: Settings, model: str | None = None
) -> Iterator[tuple[Home, WindowStore, tuple[Incident, ...]]]:
    with Home(settings) as home:
        windows = open_windows(home.path, settings.registry)
        alerts = open_alerts(home.path, settings.registry)
        try:
            with alerts.reading() as rows:
                incidents = rows.incidents(states=("open", "resolved"), model=model, limit=_INCIDENTS)
            yield home, windows, tuple(incidents)
        finally:
            alerts.close()
            windows.close()
