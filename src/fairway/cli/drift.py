"""`fairway drift`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from fairway.app.drift import drift as compare
from fairway.cli.options import HomeOption, JsonOption, names_in
from fairway.cli.output import print_json, print_line, print_table
from fairway.core.errors import InvalidInput, NotFound
from fairway.core.settings import DriftSettings

if TYPE_CHECKING:
    from fairway.monitoring.drift.values import ColumnDrift, DriftReport

app = typer.Typer(add_completion=False, help="Compare data with a reference: what has changed?")
DRIFTED = 3
"""Exit code when anything drifted. A file that is not there exits with 4 here, so that 3 means one thing."""


_UNITS = dict.fromkeys(("wasserstein", "length wasserstein", "mean shift"), "sd")
"""Of effects: standard deviations of the reference, or else a share of rows."""


@app.command(epilog="Example:  fairway drift reference.parquet current.parquet --json")
def drift(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="File of rows as they should be, or a model's name.")
    ],
    current: Annotated[str, typer.Argument(metavar="CURRENT", help="File of rows as they are.")],
    columns: Annotated[
        str, typer.Option("--columns", metavar="A,B", help="Only these.  [default: all of the reference]")
    ] = "",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="COLUMN=KIND", help="Where it is told wrongly: number, category, text, ..."
        ),
    ] = None,
    time: Annotated[
        str,
        typer.Option("--time", metavar="C", help="Column of times: like hours and weekdays are compared."),
    ] = "",
    alpha: Annotated[
        float, typer.Option("--alpha", help="Most often that data without drift raises any alarm.")
    ] = DriftSettings().alpha,
    min_rows: Annotated[
        int, typer.Option("--min-rows", help="Fewer current rows are not judged.")
    ] = DriftSettings().min_rows,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Compare every column of CURRENT with REFERENCE. Exit code 3 when anything drifted, 0 when nothing did."""
    try:
        settings = msgspec.convert({"alpha": alpha, "min_rows": min_rows}, DriftSettings)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{error}.") from error
    try:
        report = compare(
            reference,
            current,
            columns=names_in(columns),
            kinds=dict(_pair(text) for text in kind or ()),
            time=time or None,
            settings=settings,
            home=home,
        )
    except NotFound as error:
        raise InvalidInput(str(error)) from error
    if json:
        print_json(report)
    else:
        _show(report)
    if report.drifted:
        raise typer.Exit(DRIFTED)


def _pair(text: str) -> tuple[str, str]:
    name, equals, kind = text.rpartition("=")
    if not equals:
        raise InvalidInput(f"{text!r} is not COLUMN=KIND.")
    return name, kind


def _show(report: DriftReport) -> None:
    shown = [*report.columns, *((report.multivariate,) if report.multivariate else ())]
    rows = [
        (
            column.name,
            column.kind if column.name != "(columns together)" else "",
            "DRIFTED"
            if column.drifted
            else ""
            if column.status == "compared"
            else column.status.split(":")[0],
            f"{column.effect:.3g} {_UNITS.get(column.measure, 'share')}" if column.measure else "",
            f"{column.effects['psi']:.3f}" if "psi" in column.effects else "",
            f"{column.test} {column.statistic:+.1f}" if column.test else "",
            f"{column.p_value:.2g}",
            f"{column.p_adjusted:.2g}",
        )
        for column in shown
    ]
    print_table(("column", "kind", "verdict", "effect", "psi", "test", "p", "p adjusted"), rows)
    for column in shown:
        for text in _said(column):
            print_line(f"{column.name}: {text}")
    for note in report.notes:
        print_line(f"note: {note}")
    found = [column.name for column in shown if column.drifted]
    verdict = f"drifted: {', '.join(found)}" if found else "no drift"
    print_line(
        f"{verdict}  ({report.current_rows:,} rows against {report.reference_rows:,}, alpha {report.alpha:g})"
    )


def _said(column: ColumnDrift) -> list[str]:
    found = list(column.notes) if column.drifted else []
    if ":" in column.status:
        found.append(column.status)
    if column.new_categories:
        found.append(f"not in the reference: {', '.join(column.new_categories[:10])}")
    return found
