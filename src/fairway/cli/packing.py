"""What `deploy` and `package` ask for alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairway.core.errors import InvalidInput
from fairway.packaging.conversion.engine import ConversionOptions

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model file (.joblib, .pkl, .skops, .json, .ubj, .txt, .cbm, .onnx), file.py:function, or a "
        "pipeline of registered models (.toml).",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Training data or rows like it: CSV, Parquet, Arrow, JSON Lines. A pipeline can do without.",
        metavar="FILE",
    ),
]
TargetOption = Annotated[
    str | None, typer.Option("--target", help="The label's column in the data, if it is there.")
]
PrepareOption = Annotated[
    str | None,
    typer.Option(
        "--prepare", help="Preparation to run before the model: file.py:function, DataFrame to DataFrame."
    ),
]
TrustOption = Annotated[
    list[str] | None,
    typer.Option("--trust", help="A module.Class of yours that the model file may use; repeat for more."),
]
ContractOption = Annotated[
    str | None,
    typer.Option("--contract", help="A contract as TOML, instead of the one inferred.", metavar="FILE"),
]
ToleranceOption = Annotated[
    float | None,
    typer.Option("--tolerance", help="Largest difference allowed between original and served answers."),
]
FlipsOption = Annotated[int, typer.Option("--allow-flips", help="Label flips allowed in the proof.")]
ReferenceOption = Annotated[
    str | None,
    typer.Option(
        "--reference",
        help="Rows that monitors compare traffic with: best labelled, and not trained on.  [default: rows of the data]",
        metavar="FILE",
    ),
]
TimeOption = Annotated[
    str | None,
    typer.Option(
        "--time",
        help="The column that says when the reference's rows were, in UTC: an hour is compared with the same hours.  "
        "[default: the only column of times that the model does not use]",
        metavar="COLUMN",
    ),
]
QueryOption = Annotated[
    str | None,
    typer.Option(
        "--query",
        help="Of a model that ranks, the column that says which rows are one list: the order of later requests is compared "
        "with theirs (NDCG, MAP).",
        metavar="COLUMN",
    ),
]
NativeOption = Annotated[
    bool, typer.Option("--native", help="Do not convert: serve with the model's own library.")
]

FileOption = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        help="A file or folder that the Python function reads, beside it; repeat for more.",
        metavar="FILE",
    ),
]
RequirementsOption = Annotated[
    str | None,
    typer.Option(
        "--requirements",
        help="Packages of the Python function's own: it then runs in an environment and a process of its own.",
        metavar="FILE",
    ),
]
PythonOption = Annotated[
    str | None,
    typer.Option("--python", help="Python of that environment: 3.12, or a path.  [default: this one's]"),
]


def conversion_options(tolerance: float | None, allow_flips: int, native: bool) -> ConversionOptions:
    default = ConversionOptions()
    return ConversionOptions(
        tolerance=default.tolerance if tolerance is None else tolerance,
        allow_flips=allow_flips,
        force_native=native,
    )


def read_contract(path: str | None) -> str | None:
    """The contract's TOML text; what it leaves to the data (imputation) is worked out while packaging."""
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the contract {path} cannot be read: {error}.") from error
