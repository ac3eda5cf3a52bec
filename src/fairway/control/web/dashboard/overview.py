"""All models, a row each: how it is, in a glance."""

from __future__ import annotations

import msgspec

from fairway.control.web.dashboard.charts import spark, wake
from fairway.control.web.dashboard.series import Seen, buckets, read_windows
from fairway.control.web.page import Page, Shown
from fairway.core.incident import Incident, rank
from fairway.monitoring.watch.values import Point
from fairway.registry.registry import ModelSummary

PAGE = 25
_WINDOWS = 48
_OPEN = 500
_HEADLINE = ("roc_auc", "accuracy", "f1", "rmse", "mae", "ndcg")
"""Of a model's metrics the first of these stands for it."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A model. `state` is critical, warning, fine, quiet or unwatched."""

    model: ModelSummary
    state: str
    windows: tuple[Seen, ...]
    incidents: tuple[Incident, ...]
    live: int | None

    @property
    def latest(self) -> Seen | None:
        return self.windows[-1] if self.windows else None

    @property
    def rate(self) -> float | None:
        return buckets(self.windows[-1:])[0].rate if self.windows else None

    @property
    def p99(self) -> float | None:
        return self.windows[-1].summary.p99 if self.windows else None

    @property
    def traffic(self) -> str:
        return spark([point.rate for point in buckets(self.windows)], width=120, height=32)

    @property
    def wake(self) -> str:
        return wake(buckets(self.windows))

    @property
    def drifted(self) -> int:
        return len(self.windows[-1].summary.drifted) if self.windows else 0

    @property
    def headline(self) -> str:
        """The metric that is told; empty where there is none."""
        known = {name for w in self.windows for name in (*w.summary.performance, *w.summary.estimates)}
        return next((name for name in _HEADLINE if name in known), min(known, default=""))

    @property
    def measured(self) -> Point | None:
        found = [w.summary.performance.get(self.headline) for w in self.windows]
        return next((point for point in reversed(found) if point is not None), None)

    @property
    def estimated(self) -> Point | None:
        return self.windows[-1].summary.estimates.get(self.headline) if self.windows else None


def overview(page: Page) -> Shown:
    models = [model for model in page.service.models.models() if page.visitor.reaches(model.name)]
    pages = max(1, -(-len(models) // PAGE))
    number = min(page.number("page", 1, 10**6), pages)
    opened = page.service.alerts.incidents(limit=_OPEN)
    shown = models[(number - 1) * PAGE : number * PAGE]
    watched = {(key.model, key.version) for key in page.service.windows.watched()}
    rows = [_row(page, model, opened, watched) for model in shown]
    order = ("critical", "warning", "fine", "quiet", "unwatched")
    rows.sort(key=lambda row: order.index(row.state))
    mine = [
        i
        for i in opened
        if (page.visitor.reaches(i.model) if i.model else page.visitor.caller.models is None)
    ]
    return "overview.html", {
        "section": "models",
        "rows": rows,
        "total": len(models),
        "incidents": mine,
        "state": page.service.state(),
        "number": number,
        "pages": pages,
    }


def _row(page: Page, model: ModelSummary, opened: tuple[Incident, ...], watched: set[tuple[str, int]]) -> Row:
    arms = [] if model.route is None else sorted(model.route.arms, key=lambda arm: -arm.weight)
    live = arms[0].version if arms else None
    seen = [version for name, version in sorted(watched) if name == model.name]
    version = live if live in seen else (seen[-1] if seen else None)
    windows = read_windows(page.service.windows, model.name, version, limit=_WINDOWS) if seen else ()
    mine = tuple(incident for incident in opened if incident.model == model.name)
    worst = max((rank(incident.severity) for incident in mine), default=0)
    if worst:
        state = ("", "warning", "critical")[worst]
    elif not windows:
        state = "unwatched"
    else:
        state = "fine" if windows[-1].summary.rows else "quiet"
    return Row(model=model, state=state, windows=windows, incidents=mine, live=live)
