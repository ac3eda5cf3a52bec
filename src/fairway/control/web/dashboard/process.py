"""The control process itself: who leads, and how its jobs are."""

from __future__ import annotations

from fairway.control.web.page import Page, Shown


def process(page: Page) -> Shown:
    whole = page.visitor.caller.models is None
    return "process.html", {
        "section": "process",
        "state": page.service.state(),
        "queues": page.service.alerts.queues() if whole else {},
        "where": page.service.windows.where if whole else "",
        "settings": page.service.settings,
    }
