"""The tables of pages and of what forms do."""

from __future__ import annotations

from collections.abc import Callable

from fairway.control.web.dashboard import drift, incidents, model, performance, process, work
from fairway.control.web.dashboard.overview import overview
from fairway.control.web.page import Page, Sent, Shown

PAGES: tuple[tuple[str, Callable[[Page], Shown]], ...] = (
    ("/", overview),
    ("/models/{model}", model.summary),
    ("/models/{model}/drift", drift.ranked),
    ("/models/{model}/drift/{column:path}", drift.column),
    ("/models/{model}/performance", performance.performance),
    ("/models/{model}/quality", performance.quality),
    ("/models/{model}/slices", performance.slices),
    ("/models/{model}/route", model.route),
    ("/incidents", incidents.listed),
    ("/incidents/{incident}", incidents.shown),
    ("/schedules", work.schedules),
    ("/schedules/{schedule}", work.schedule),
    ("/batch", work.batch),
    ("/batch/{run}", work.batch_run),
    ("/process", process.process),
)
"""Path and what makes the page."""

ACTIONS: tuple[tuple[str, Callable[[Sent], str]], ...] = (
    ("/incidents/{incident}/acknowledge", incidents.acknowledge),
    ("/incidents/{incident}/resolve", incidents.resolve),
    ("/incidents/{incident}/silence", incidents.silence),
    ("/silences/{silence}/end", incidents.end_silence),
    ("/schedules/{schedule}/run", work.run),
    ("/schedules/{schedule}/pause", work.pause),
    ("/schedules/{schedule}/resume", work.resume),
)
"""Path that a form posts to, and what does it and says where to go then."""
