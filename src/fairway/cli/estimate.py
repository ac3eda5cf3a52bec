"""`fairway estimate`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from fairway.app.estimate import estimate as estimate_performance
from fairway.cli.options import JsonOption, names_in
from fairway.cli.output import print_json, print_line, print_table
from fairway.cli.progress import progress_bar

if TYPE_CHECKING:
    from fairway.monitoring.performance.estimate import ChunkReport, Estimate, EstimateReport

app = typer.Typer(add_completion=False, help="Estimate how well a model does before labels come.")
ALERT = 3
"""Exit code when a chunk of the current data is outside what is usual."""


class TaskName(StrEnum):
    classification = "classification"
    regression = "regression"


class CalibrationKind(StrEnum):
    none = "none"
    smooth = "smooth"
    isotonic = "isotonic"
    features = "features"


@app.command(
    epilog="Example:  fairway estimate reference.parquet current.parquet "
    "--proba score --prediction label --target repaid --chunk 5000"
)
def estimate(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="File with labels.")],
    current: Annotated[str, typer.Argument(metavar="CURRENT", help="File whose labels have not come.")],
    target: Annotated[str, typer.Option("--target", metavar="C", help="Column of labels or actual values.")],
    proba: Annotated[
        str,
        typer.Option(
            "--proba",
            metavar="C",
            help="Column of the positive class's probability; of more classes A=C1,B=C2,...",
        ),
    ] = "",
    prediction: Annotated[
        str,
        typer.Option("--prediction", metavar="C", help="Column of predictions.  [default: likeliest class]"),
    ] = "",
    chunk: Annotated[
        str, typer.Option("--chunk", metavar="N|PERIOD", help="Rows, or 6h, 1d, week, month of --time.")
    ] = "5000",
    time: Annotated[
        str, typer.Option("--time", metavar="C", help="Column of times; rows are put in order by it.")
    ] = "",
    metrics: Annotated[str, typer.Option("--metrics", metavar="A,B", help="Which.  [default: all]")] = "",
    task: Annotated[TaskName | None, typer.Option("--task", help="[default: by the columns]")] = None,
    features: Annotated[
        str,
        typer.Option("--features", metavar="A,B", help="Inputs that may help.  [default: all other columns]"),
    ] = "",
    positive: Annotated[
        str, typer.Option("--positive", metavar="CLASS", help="Which class --proba is of.")
    ] = "",
    value: Annotated[
        str,
        typer.Option("--value", metavar="A,B;C,D", help="What an outcome is worth: actual by predicted."),
    ] = "",
    confidence: Annotated[float, typer.Option("--confidence", help="Of intervals.")] = 0.95,
    calibration: Annotated[
        CalibrationKind | None, typer.Option("--calibration", help="[default: what is best on the reference]")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Estimate performance chunk by chunk; exit code 3 when a chunk of CURRENT is outside what is usual."""
    with progress_bar(quiet=json) as progress:
        report = estimate_performance(
            reference,
            current,
            target=target,
            prediction=prediction or None,
            proba=proba or None,
            chunk=chunk,
            time=time or None,
            task=task.value if task else None,
            metrics=names_in(metrics),
            features=names_in(features) if features else None,
            positive=positive or None,
            value=value or None,
            confidence=confidence,
            calibration=calibration.value if calibration else "",
            progress=progress,
        )
    if json:
        print_json(report)
    else:
        _show(report)
    if report.alert:
        raise typer.Exit(ALERT)


def _show(report: EstimateReport) -> None:
    calibrated = f", probabilities calibrated: {report.calibration}" if report.calibration else ""
    print_line(
        f"{report.task} estimated without labels ({report.method}{calibrated}), {report.confidence:.0%} intervals"
    )
    headings = ("period", "start", "end", "rows", *report.metrics)
    print_table(headings, [_row(chunk, report.metrics) for chunk in report.chunks])
    alerts = [chunk for chunk in report.chunks if chunk.period == "analysis" and chunk.alert]
    current = sum(chunk.period == "analysis" for chunk in report.chunks)
    for note in report.notes:
        print_line(f"note: {note}")
    if not alerts:
        print_line(f"all {current} chunks are as usual")
        return
    print_line(f"{len(alerts)} of {current} chunks are outside what is usual (marked !):")
    for name in report.metrics:
        out = [chunk.metrics[name] for chunk in alerts if chunk.metrics[name].alert]
        if out:
            print_line(f"  {name}: {len(out)} chunks; usual {_usual(out[0])}")


def _usual(metric: Estimate) -> str:
    return f"{metric.usual_lower:.4g} to {metric.usual_upper:.4g}"


def _row(chunk: ChunkReport, names: tuple[str, ...]) -> list[object]:
    cells: list[object] = [chunk.period, chunk.start, chunk.end, f"{chunk.rows:,}"]
    for name in names:
        metric = chunk.metrics[name]
        if metric.value is None or metric.lower is None or metric.upper is None:
            cells.append("-")
        else:
            half = (metric.upper - metric.lower) / 2
            cells.append(f"{metric.value:.4f}±{half:.4f}{'!' if metric.alert else ''}")
    return cells
