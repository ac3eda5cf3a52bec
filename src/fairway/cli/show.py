"""`fairway show`."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from fairway.app.home import open_home
from fairway.cli.graph import graph_rows, read_graph
from fairway.cli.models import traffic_text
from fairway.cli.options import HomeOption, JsonOption, ReferenceArgument
from fairway.cli.output import print_json, print_line, print_table, seconds_text, tolerance_text
from fairway.core.contract import DType, Field
from fairway.core.pipeline import KIND as PIPELINE
from fairway.core.version import parse_reference
from fairway.packaging.bundle import Bundle, read_bundle
from fairway.runtimes.base import ISOLATED
from fairway.runtimes.isolated.engine import bundle_lock

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway show payments@champion --proof")
def run(
    model: ReferenceArgument,
    proof: Annotated[bool, typer.Option("--proof", help="The comparison with the original model.")] = False,
    card: Annotated[bool, typer.Option("--card", help="The model card, Markdown.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show a model and one of its versions: where it came from, what it takes, how it was proved."""
    reference = parse_reference(model)
    with open_home(home) as place:
        version = place.registry.resolve(reference)
        versions = place.registry.versions(reference.model)
        route = place.registry.route(reference.model)
        bundle = read_bundle(place.registry.fetch(version))
    if card:
        print_line((bundle.directory / "card.md").read_text(encoding="utf-8"))
        return
    graph = read_graph(bundle.directory / bundle.spec.file) if bundle.engine == PIPELINE else None
    if json:
        print_json(
            {
                "version": version,
                "versions": [v.version for v in versions],
                "route": route,
                "contract": bundle.contract,
                "proof": bundle.proof,
                "timings": bundle.timings,
                "environment": bundle.environment,
                **({"pipeline": graph} if graph is not None else {}),
            }
        )
        return
    if proof:
        _proof(bundle)
        return
    print_line(f"{version.model}:{version.version}   {version.digest}")
    print_line(f"  made       {version.created} by {version.created_by}")
    print_line(f"  aliases    {', '.join(version.aliases) or '-'}")
    print_line(f"  engine     {version.engine}")
    if version.engine.startswith(ISOLATED):
        print_line(
            f"  runs in    an environment of its own: {bundle_lock(bundle.directory, bundle.spec).described()}"
        )
    print_line(f"  traffic    {traffic_text(route)}")
    print_line(f"  versions   {', '.join(str(v.version) for v in versions)}")
    if graph is not None:
        print_line()
        print_table(("node", "what", "reads", "gives"), graph_rows(graph))
    print_line()
    print_table(
        ("input", "type", "nulls", "range or categories"),
        [
            (
                field.name,
                f"{field.dtype}{list(field.shape) if field.shape else ''}",
                f"{field.missing_rate:.1%}" if field.nullable else "no",
                _values_text(field),
            )
            for field in bundle.contract
        ],
    )
    print_line()
    print_table(
        ("output", "type"),
        [(o.name, f"{o.dtype} [{', '.join(['n', *map(str, o.shape)])}]") for o in bundle.contract.outputs],
    )


def _values_text(field: Field) -> str:
    """What a field's values were in training."""
    if field.minimum is not None:
        return f"{_limit_text(field, field.minimum)} .. {_limit_text(field, field.maximum)}"
    names = ", ".join(str(category.value) for category in field.categories[:5])
    return names + (", ..." if len(field.categories) > 5 else "")


def _limit_text(field: Field, value: float | None) -> str:
    if value is None:
        return ""
    if field.dtype is DType.timestamp:
        return f"{np.datetime64(int(value), 'us').astype('datetime64[s]')}Z"
    return f"{value:g}"


def _proof(bundle: Bundle) -> None:
    proof, timings = bundle.proof, bundle.timings
    print_line(f"Engine {proof.engine}: {proof.reason}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in proof.rows_by_kind.items())
    print_line(f"Compared on {proof.rows} rows ({kinds})")
    print_line(
        f"Label flips {proof.label_flips}, largest difference {proof.max_abs_diff:.3g}, "
        f"mean {proof.mean_abs_diff:.3g}, tolerance {tolerance_text(proof)}"
    )
    print_line()
    print_table(
        ("tried", "taken", "rows", "flips", "max diff", "why"),
        [
            (
                a.strategy,
                "yes" if a.accepted else "no",
                a.rows,
                a.label_flips,
                f"{a.max_abs_diff:.3g}",
                a.reason,
            )
            for a in proof.attempts
        ],
    )
    if timings is not None:
        print_line()
        print_table(
            ("rows", "original", "served", "faster"),
            [
                _timing("1", timings.original_row_seconds, timings.served_row_seconds),
                _timing(
                    str(timings.batch_rows), timings.original_batch_seconds, timings.served_batch_seconds
                ),
            ],
        )


def _timing(rows: str, before: float, after: float) -> tuple[str, str, str, str]:
    return rows, seconds_text(before), seconds_text(after), f"{before / max(after, 1e-9):.1f}x"
