"""`fairway monitor list|show|report`: what was kept of the windows that were looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fairway.app.seen import gathered, watched, write_report
from fairway.app.seen import show as window_in
from fairway.app.settings import read_settings
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import moments_text, print_json, print_line, print_table
from fairway.core.errors import InvalidInput
from fairway.monitoring import words
from fairway.monitoring.watch.values import Metric, Report

app = typer.Typer(add_completion=False)
_COLUMNS = 20

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name.")]
VersionOption = Annotated[
    int | None,
    typer.Option("--version", min=1, metavar="N", help="Of this version.  [default: the last looked at]"),
]


@app.command(name="list", epilog="Example:  fairway monitor list")
def list_(home: HomeOption = None, json: JsonOption = False) -> None:
    """Show every version that is watched, with its last window."""
    found = watched(read_settings(home))
    if json:
        print_json(found)
        return
    if not found:
        print_line("no window was looked at yet")
        return
    rows = [
        (
            f"{w.model}:{w.version}",
            w.state,
            f"{w.rows:,}",
            f"{w.labels:,}",
            moments_text(w.start, w.end),
            words.columns(w.drifted),
        )
        for w in found
    ]
    print_table(("version", "state", "rows", "labels", "last window, UTC", "drifted"), rows)


@app.command(epilog="Example:  fairway monitor show payments --window 2026-11-21T12:00Z")
def show(
    model: ModelArgument,
    window: Annotated[
        str,
        typer.Option(
            "--window", metavar="START", help="The one that begins then.  [default: the last with rows]"
        ),
    ] = "",
    version: VersionOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show a window in full: columns ranked by drift, data quality, performance, estimates, notes."""
    report = window_in(read_settings(home), model, version=version, start=window)
    if json:
        print_json(report)
    else:
        _show(report)


@app.command(epilog="Example:  fairway monitor report payments --html report.html --since 30d")
def report(
    model: ModelArgument,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one file that opens offline in any browser."),
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="TIME", help="A date, a time, or 12h, 7d.  [default: the last 168 windows]"
        ),
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Windows that begin earlier.")] = "",
    version: VersionOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Write what the dashboard shows of a model: drift, performance, quality, slices, incidents, over time."""
    if html is None and not json:
        raise InvalidInput("say what is to be made of it.", hint="Give --html report.html, or --json.")
    told = gathered(read_settings(home), model, version=version, since=since, until=until)
    if html is not None:
        size = write_report(told, html)
        if not json:
            print_line(
                f"{html}  {len(told.windows):,} windows of {told.model}:{told.version}, {size / 1e6:.2f} MB"
            )
    if json:
        print_json(told)


def _show(report: Report) -> None:
    print_line(
        f"{report.model}:{report.version}  {moments_text(report.start, report.end)} UTC  {words.rows(report.rows)}"
    )
    if report.reference:
        print_line(f"compared with {report.reference}")
    compared = [column for column in report.columns if column.drift is not None]
    if compared:
        print_line()
        rows = [
            (
                c.name if c.role == "input" else words.prediction(c.name),
                "DRIFTED" if c.drift.drifted else "" if c.drift.status == "compared" else c.drift.status,
                words.effect(c.drift.effect, c.drift.measure) if c.drift.status == "compared" else "",
                words.probability(c.drift.p_adjusted) if c.drift.status == "compared" else "",
                "" if c.importance is None else f"{c.importance:.0%}",
            )
            for c in compared[:_COLUMNS]
            if c.drift is not None
        ]
        print_table(("column", "verdict", "moved by", "p adjusted", "importance"), rows)
        if len(compared) > _COLUMNS:
            print_line(f"and {len(compared) - _COLUMNS} columns more; --json has them all")
    if report.multivariate is not None and report.multivariate.drifted:
        print_line("; ".join(("columns together: DRIFTED", *report.multivariate.notes[:1])))
    _table("performance", report.performance)
    _table("estimated performance", report.estimates)
    if report.quality:
        print_line()
        print_table(
            ("data quality", "check", "what"),
            [(q.field or "the window", q.rule or q.check, q.text) for q in report.quality],
        )
    if report.slices or report.worst:
        print_line()
        print_table(
            ("worst where", "rows", "mean loss", "elsewhere"),
            [(w.name, f"{w.rows:,}", _number(w.loss), _number(w.elsewhere)) for w in report.worst[:5]],
        )
    for note in report.notes:
        print_line(f"note: {note}")


def _table(title: str, metrics: tuple[Metric, ...]) -> None:
    if not metrics:
        return
    print_line()
    rows: list[tuple[Any, ...]] = []
    for metric in metrics:
        told = metric.measured
        between = "" if told.lower is None else f"{_number(told.lower)} to {_number(told.upper)}"
        limits = words.bounded(told.name, metric.usual)
        usual = "" if limits is None else f"{_number(limits[0])} to {_number(limits[1])}"
        rows.append(
            (
                words.metric(told.name),
                _number(told.value),
                between,
                usual,
                "OUTSIDE" if metric.alert else told.note,
            )
        )
    print_table((title, "value", "95% interval", "usual", ""), rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
