"""What all pages of one model have: the version, the time that is looked at, and its windows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from fairway.control.web.dashboard.charts import Mark
from fairway.control.web.dashboard.seen import report_in
from fairway.control.web.dashboard.series import Seen, read_windows
from fairway.control.web.page import Page
from fairway.core.clock import utc_text
from fairway.core.errors import InvalidInput, NotFound
from fairway.core.incident import Incident
from fairway.monitoring.watch.values import Report
from fairway.registry.registry import ModelSummary
from fairway.stores.windows import MOST_WINDOWS, WindowKey

LATEST = 168
"""Windows shown when nothing is asked for: a week of hours."""
RANGES: tuple[tuple[str, str, float], ...] = (
    ("latest", "Latest", 0.0),
    ("day", "24 h", 1.0),
    ("week", "7 d", 7.0),
    ("month", "30 d", 30.0),
    ("quarter", "90 d", 90.0),
    ("year", "1 y", 365.0),
)
TABS: tuple[tuple[str, str], ...] = (
    ("", "Summary"),
    ("drift", "Drift"),
    ("performance", "Performance"),
    ("quality", "Data quality"),
    ("slices", "Slices"),
    ("route", "Route"),
)


class ModelFrame(msgspec.Struct, frozen=True, kw_only=True):
    """`version` is the one that is looked at; `windows` are its windows, the oldest first; `report` is the one that was asked
    for, else the latest that has rows; `earlier` and `later` are the starts of those beside it."""

    model: ModelSummary
    version: int
    watched: tuple[int, ...]
    range: str
    windows: tuple[Seen, ...]
    report: Report | None
    earlier: str
    later: str
    incidents: tuple[Incident, ...]

    @property
    def marks(self) -> tuple[Mark, ...]:
        """When incidents of this version opened."""
        return Mark.of(incident for incident in self.incidents if incident.version in (0, self.version))


def frame_of(page: Page, tab: str) -> dict[str, Any]:
    """`frame`, `tab`, `ranges` and so on, for the head of a model's page. Forbidden, ModelNotFound, InvalidInput."""
    name = page.names["model"]
    page.check_known(name)
    model = next(model for model in page.service.models.models() if model.name == name)
    watched = tuple(sorted({key.version for key in page.service.windows.watched() if key.model == name}))
    version = _version(page, model, watched)
    chosen = page.query.get("range", "latest")
    days = next((days for key, _, days in RANGES if key == chosen), None)
    if days is None:
        raise InvalidInput(f"range={chosen[:20]!r} is none of {', '.join(key for key, _, _ in RANGES)}.")
    windows = read_windows(
        page.service.windows,
        name,
        version,
        since=utc_text(datetime.now(UTC) - timedelta(days=days)) if days else "",
        limit=MOST_WINDOWS if days else LATEST,
    )
    key = _asked(page, name, windows)
    frame = ModelFrame(
        model=model,
        version=version,
        watched=watched,
        range=chosen,
        windows=windows,
        report=None if key is None else report_in(page.service.windows.window(key)),
        earlier=_beside(windows, key, -1),
        later=_beside(windows, key, 1),
        incidents=page.service.alerts.incidents(states=("open", "resolved"), model=name, limit=50),
    )
    kept = {key: page.query[key] for key in ("version", "range") if page.query.get(key)}
    return {
        "frame": frame,
        "section": "models",
        "tab": tab,
        "tabs": TABS,
        "ranges": RANGES,
        "kept": kept,
        "every": 60 if days >= 30 else 5,
        "open_incidents": [incident for incident in frame.incidents if incident.state == "open"],
    }


def _version(page: Page, model: ModelSummary, watched: tuple[int, ...]) -> int:
    text = page.query.get("version", "")
    if text:
        version = page.number("version", 1, 10**9)
        if version > model.latest:
            raise NotFound(f"{model.name} has no version {version}.")
        return version
    live = [] if model.route is None else sorted(model.route.arms, key=lambda arm: -arm.weight)
    return next(
        (arm.version for arm in live if arm.version in watched), watched[-1] if watched else model.latest
    )


def _asked(page: Page, name: str, windows: tuple[Seen, ...]) -> WindowKey | None:
    """That of `?window=`, a window's start; else the latest window with rows. NotFound."""
    asked = page.query.get("window", "")
    if not asked:
        return latest_with_rows(windows)
    key = next((window.key for window in windows if window.key.start == asked), None)
    if key is None:
        raise NotFound(f"No window of {name} that is shown here begins at {asked[:40]!r}.")
    return key


def _beside(windows: tuple[Seen, ...], key: WindowKey | None, step: int) -> str:
    """The start of the next window with rows in that direction; empty where there is none."""
    starts = [window.key.start for window in windows if window.summary.rows or window.key == key]
    if key is None:
        return ""
    place = starts.index(key.start) + step
    return starts[place] if 0 <= place < len(starts) else ""


def latest_with_rows(windows: tuple[Seen, ...]) -> WindowKey | None:
    return next((window.key for window in reversed(windows) if window.summary.rows), None)
