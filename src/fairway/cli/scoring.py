"""What `batch run` and `batch schedule` ask for alike."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Engine(StrEnum):
    local = "local"
    spark = "spark"
    ray = "ray"


class OutputFormat(StrEnum):
    parquet = "parquet"
    csv = "csv"
    jsonl = "jsonl"
    arrow = "arrow"


class Compression(StrEnum):
    snappy = "snappy"
    zstd = "zstd"
    lz4 = "lz4"
    gzip = "gzip"
    none = "none"


KeepOption = Annotated[
    str, typer.Option("--keep", metavar="A,B", help="Input columns that go to the output.")
]
JoinOption = Annotated[bool, typer.Option("--join", help="All input columns go to the output.")]
FormatOption = Annotated[
    OutputFormat | None,
    typer.Option("--format", help="Of output files.  [default: by the name; parquet in a folder]"),
]
InputFormatOption = Annotated[
    str, typer.Option("--input-format", help="Of input files.  [default: by their names]")
]
EncodingOption = Annotated[str, typer.Option("--encoding", help="Of CSV input.")]
DelimiterOption = Annotated[str, typer.Option("--delimiter", help="Of CSV input.  [default: by its header]")]
RowsPerFileOption = Annotated[
    int, typer.Option("--rows-per-file", min=0, help="About so many in each file of a folder.")
]
FileSizeOption = Annotated[
    str,
    typer.Option("--file-size", metavar="128MB", help="Begin another file of a folder from about there on."),
]
CompressionOption = Annotated[
    Compression | None,
    typer.Option("--compression", help="Of output files.  [default: snappy for parquet, else none]"),
]
MaxErrorsOption = Annotated[
    str, typer.Option("--max-errors", metavar="1%|N", help="Stop when more rows are rejected.")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, max=256, help="Scorers.  [default: one a core]")
]
LogOption = Annotated[
    str,
    typer.Option(
        "--log",
        metavar="COLUMN",
        help="Record predictions for the monitor, each under its key in this column.",
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what the output holds, and do a finished run anew.")
]
EngineOption = Annotated[Engine, typer.Option("--engine", help="What scores: this machine, or a cluster.")]
