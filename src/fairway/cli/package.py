"""`fairway package`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fairway.app.library import package
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import print_json, print_line
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
from fairway.packaging.archive import SUFFIX, archive
from fairway.packaging.bundle import require_free

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Example:  fairway package model.joblib --data train.parquet --target is_fraud --out payments.bundle"
)
def run(
    model: ModelArgument,
    out: Annotated[
        str,
        typer.Option(
            "--out", help="Folder to make; or a file ending in .fairway. Must not exist.", metavar="PATH"
        ),
    ],
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
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Make a bundle from a model and sample data, without registering it."""
    path = Path(out)
    single = path.suffix == SUFFIX
    require_free(path)
    with progress_bar(quiet=json) as progress, tempfile.TemporaryDirectory(prefix="fairway-") as scratch:
        packaged = package(
            model,
            data,
            out=Path(scratch) / "bundle" if single else path,
            target=target,
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
            home=home,
            progress=progress,
        )
        if single:
            archive(packaged.directory, path)
    if json:
        print_json(
            {"path": str(path), "digest": packaged.digest, "engine": packaged.engine, "proof": packaged.proof}
        )
        return
    print_line(f"{path}   {packaged.digest}")
    print_line(f"  engine   {packaged.engine}: {packaged.proof.reason}")
    for note in packaged.notes:
        print_line(f"  note     {note}")
    print_line(f"Register it:  fairway register {path} --name NAME")
