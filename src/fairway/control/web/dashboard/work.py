"""Schedules and batch runs: what is due, what became of it, run now, pause."""

from __future__ import annotations

from fairway.control.desk import MOST_HISTORY
from fairway.control.web.page import Page, Sent, Shown
from fairway.core.version import parse_reference

PAGE = 50


def schedules(page: Page) -> Shown:
    seen = [
        view
        for view in page.service.desk.list()
        if page.visitor.reaches(parse_reference(view.schedule.work.model).model)
    ]
    pages = max(1, -(-len(seen) // PAGE))
    number = min(page.number("page", 1, 10**6), pages)
    runs = [
        run
        for run in page.service.desk.history(None, PAGE)
        if page.visitor.reaches(parse_reference(run.model).model)
    ]
    return "schedules.html", {
        "section": "schedules",
        "views": seen[(number - 1) * PAGE : number * PAGE],
        "runs": runs[:20],
        "number": number,
        "pages": pages,
    }


def schedule(page: Page) -> Shown:
    name = page.names["schedule"]
    page.check_model(page.service.desk.model_of(name))
    limit = page.number("limit", PAGE, MOST_HISTORY)
    runs = page.service.desk.history(name, limit)
    return "schedule.html", {
        "section": "schedules",
        "view": page.service.desk.show(name),
        "runs": runs,
        "limit": limit,
        "more": len(runs) == limit,
    }


def run(sent: Sent) -> str:
    sent.service.desk.run(_changed(sent), who=sent.visitor.name or "dashboard")
    return _back(sent)


def pause(sent: Sent) -> str:
    sent.service.desk.pause(_changed(sent))
    return _back(sent)


def resume(sent: Sent) -> str:
    sent.service.desk.resume(_changed(sent))
    return _back(sent)


def batch(page: Page) -> Shown:
    found = [run for run in page.service.batch_runs() if page.visitor.reaches(run.model)]
    pages = max(1, -(-len(found) // PAGE))
    number = min(page.number("page", 1, 10**6), pages)
    return "batch.html", {
        "section": "batch",
        "runs": found[(number - 1) * PAGE : number * PAGE],
        "total": len(found),
        "number": number,
        "pages": pages,
    }


def batch_run(page: Page) -> Shown:
    line, report = page.service.batch_run(page.names["run"])
    page.check_model(line.model)
    columns = [] if report is None else sorted(report.columns, key=lambda c: (not c.drifted, -(c.psi or 0.0)))
    return "batch_run.html", {
        "section": "batch",
        "run": line,
        "report": report,
        "columns": columns[:PAGE],
        "most": PAGE,
    }


def _changed(sent: Sent) -> str:
    name = sent.names["schedule"]
    sent.gate.check_model(sent.visitor, sent.service.desk.model_of(name))
    return name


def _back(sent: Sent) -> str:
    return f"/schedules/{sent.names['schedule']}"
