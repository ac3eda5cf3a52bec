"""`fairway deploy`."""

from __future__ import annotations

from typing import Annotated

import typer

from fairway.app.library import Deployment, deploy
from fairway.cli.options import HomeOption, JsonOption, WhyOption
from fairway.cli.output import print_json, print_line, seconds_text, tolerance_text
from fairway.cli.packing import (
    ContractOption,
    DataOption,
    FileOption,
    FlipsOption,
    ModelArgument,
    NativeOption,
    PrepareOption,
    PythonOption,
    QueryOption,
    ReferenceOption,
    RequirementsOption,
    TargetOption,
    TimeOption,
    ToleranceOption,
    TrustOption,
    conversion_options,
    read_contract,
)
from fairway.cli.progress import progress_bar

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Example:  fairway deploy model.joblib --data train.parquet --target is_fraud --name payments"
)
def run(
    model: ModelArgument,
    name: Annotated[str, typer.Option("--name", help="The model's name.")],
    data: DataOption = None,
    target: TargetOption = None,
    prepare: PrepareOption = None,
    trust: TrustOption = None,
    file: FileOption = None,
    requirements: RequirementsOption = None,
    python: PythonOption = None,
    contract: ContractOption = None,
    tolerance: ToleranceOption = None,
    allow_flips: FlipsOption = 0,
    native: NativeOption = False,
    reference: ReferenceOption = None,
    time: TimeOption = None,
    query: QueryOption = None,
    why: WhyOption = "deploy",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Package a model, register it and give it the traffic."""
    with progress_bar(quiet=json) as progress:
        deployed = deploy(
            model,
            data,
            name=name,
            target=target,
            home=home,
            prepare=prepare,
            trust=tuple(trust or ()),
            files=tuple(file or ()),
            requirements=requirements,
            python=python,
            options=conversion_options(tolerance, allow_flips, native),
            contract=read_contract(contract),
            reference=reference,
            time=time,
            query=query,
            why=why,
            progress=progress,
        )
    if json:
        print_json(deployed)
    else:
        _report(deployed)


def _report(deployed: Deployment) -> None:
    proof, timings = deployed.proof, deployed.timings
    state = "is live" if deployed.is_new else "was registered before and is live"
    print_line(f"{deployed.name}:{deployed.version} {state}   {deployed.digest}")
    print_line(f"  engine   {deployed.engine}: {proof.reason}")
    print_line(
        f"  proof    {proof.rows} rows, {proof.label_flips} label flips, "
        f"largest difference {proof.max_abs_diff:.3g} (tolerance {tolerance_text(proof)})"
    )
    if timings is not None:
        row = timings.original_row_seconds / max(timings.served_row_seconds, 1e-9)
        batch = timings.original_batch_seconds / max(timings.served_batch_seconds, 1e-9)
        print_line(
            f"  one row  {seconds_text(timings.original_row_seconds)} -> "
            f"{seconds_text(timings.served_row_seconds)} ({row:.1f}x)"
        )
        print_line(
            f"  {timings.batch_rows} rows  {seconds_text(timings.original_batch_seconds)} -> "
            f"{seconds_text(timings.served_batch_seconds)} ({batch:.1f}x)"
        )
    for note in deployed.notes:
        print_line(f"  note     {note}")
    print_line(f"Serve it:  fairway serve {deployed.name}")
