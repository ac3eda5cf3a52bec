"""`fairway monitor list|look|show|report|grafana|rules`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from fairway.app.settings import read_settings
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import print_json, print_line, print_table
from fairway.core.errors import InvalidInput, NotFound
from fairway.monitoring import words

if TYPE_CHECKING:
    from fairway.monitoring.watch.values import Metric, Report

app = typer.Typer(
    add_completion=False,
    help="What monitors saw of each model; dashboards and rules for Grafana and Prometheus.",
)
ALERTED = 3
"""Exit code when a window drifted, or something in it is not as it should be."""
_COLUMNS = 20

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name.")]
VersionOption = Annotated[
    int | None,
    typer.Option("--version", min=1, metavar="N", help="Of this version.  [default: the last looked at]"),
]


@app.command(name="list", epilog="Example:  fairway monitor list")
def list_(home: HomeOption = None, json: JsonOption = False) -> None:
    """Show every version that is watched, with its last window."""
    found = import_module("fairway.app.seen").watched(read_settings(home))
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
            _span(w.start, w.end),
            _names(w.drifted),
        )
        for w in found
    ]
    print_table(("version", "state", "rows", "labels", "last window, UTC", "drifted"), rows)


@app.command(epilog="Example:  fairway monitor look payments")
def look(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Only this model.  [default: all that have predictions]")
    ] = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Look now at every window that is over, as the control process does by itself. Exit code 3 when one drifted, or when
    something else in it is not as it should be."""
    try:
        reports = import_module("fairway.app.watch").look_now(read_settings(home), model=model)
    except NotFound as error:  # 3 means one thing
        raise InvalidInput(str(error)) from error
    if json:
        print_json([msgspec.Raw(import_module("fairway.monitoring.watch.kept").encoded(r)) for r in reports])
    elif not reports:
        print_line("no window is over that was not looked at")
    else:
        rows = [
            (
                f"{r.model}:{r.version}",
                _span(r.start, r.end),
                f"{r.rows:,}",
                f"{r.labels:,}",
                _names([c.name for c in r.columns if c.drift is not None and c.drift.drifted]),
                "; ".join(f.text for f in r.findings if f.kind != "drift" and f.severity != "info")[:120],
            )
            for r in reports
        ]
        print_table(("version", "window, UTC", "rows", "labels", "drifted", "else"), rows)
    if any(r.drifted or any(f.severity != "info" for f in r.findings) for r in reports):
        raise typer.Exit(ALERTED)


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
    report = import_module("fairway.app.seen").show(read_settings(home), model, version=version, start=window)
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
    seen = import_module("fairway.app.seen")
    told = seen.gathered(read_settings(home), model, version=version, since=since, until=until)
    if html is not None:
        size = seen.write_report(told, html)
        if not json:
            print_line(
                f"{html}  {len(told.windows):,} windows of {told.model}:{told.version}, {size / 1e6:.2f} MB"
            )
    if json:
        print_json(told)


@app.command(epilog="Example:  fairway monitor grafana --output /etc/grafana/dashboards")
def grafana(
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Where the files go.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Write dashboards for Grafana 10 and newer, over a Prometheus that scrapes the servers. Import or provision them."""
    files = import_module("fairway.app.monitor_files").write_dashboards(output)
    if json:
        print_json([str(path) for path in files])
        return
    for path in files:
        print_line(str(path))


@app.command(epilog="Example:  fairway monitor rules > /etc/prometheus/rules/fairway.yml")
def rules(
    job: Annotated[
        str, typer.Option("--job", metavar="NAME", help="What the scrape job is called in prometheus.yml.")
    ] = "fairway",
) -> None:
    """Print alert rules for Prometheus: servers that fail, are slow, or are gone."""
    print_line(import_module("fairway.app.monitor_files").prometheus_rules(job).rstrip("\n"))


def _show(report: Report) -> None:
    print_line(
        f"{report.model}:{report.version}  {_span(report.start, report.end)} UTC  {words.rows(report.rows)}"
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


def _names(names: Any) -> str:
    shown = [words.subject_of("drift", name) for name in names]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def _span(start: str, end: str) -> str:
    """Such as `2026-11-21 12:00:00 to 13:00:00`."""
    first, last = start[:19].replace("T", " "), end[:19].replace("T", " ")
    return f"{first} to {last[11:] if first[:10] == last[:10] else last}"
