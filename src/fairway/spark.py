"""A registered model over a Spark DataFrame.

    import fairway.spark

    scored = fairway.spark.score(spark.table("visits"), "payments", keep=["id"])
    scored.where("reject is not null").show()

The driver finds the model in its registry and sends the bundle to the executors as a file named by its digest; each of
their Python processes loads it once. Executors need `fairway[spark]` of the same version, and no registry. Answers are
the server's, to the last bit. For files and tables, with rejects by row number and exactly-once output, see
`fairway batch run --engine spark`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from fairway.app.batch import find_model
from fairway.app.home import open_home
from fairway.batch.bundles import at_home, for_workers, load_once, unpack
from fairway.batch.frames import Frame, OnReject, frame_schema, score_frame
from fairway.batch.local import Model
from fairway.batch.on_spark import ship
from fairway.core.errors import MissingExtra
from fairway.core.settings import Settings
from fairway.packaging.bundle import read_bundle

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["score"]


def score(
    df: DataFrame,
    model: str,
    *,
    keep: Sequence[str] | None = None,
    on_reject: OnReject = "column",
    home: str | os.PathLike[str] | None = None,
) -> DataFrame:
    """`df` with the model's outputs: its columns (`keep`: only these), the outputs, and `reject`, which says what is
    wrong with a row that breaks the contract and is null for the others. Lazy, as every DataFrame.

    `model` is `payments`, `payments@champion` or `payments:3`. A kept column called like an output becomes
    `input_NAME`; outputs of several values are arrays, unsigned numbers signed ones. With
    `on_reject="raise"` there is no column `reject`, and a bad row fails the job. Raises what `fairway.load` raises for
    the model, InvalidInput for columns that are not there, and MissingExtra.
    """
    try:
        from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema  # the extra `spark`
    except ImportError as error:
        raise MissingExtra(
            "Spark needs the package pyspark.", hint="Install it with: pip install 'fairway[spark]'"
        ) from error
    frame = Frame(None if keep is None else tuple(keep), on_reject)
    with open_home(home) as place:
        found = find_model(place, model)
        settings = for_workers(place.settings)
    contract = read_bundle(Path(found.directory)).contract
    given = to_arrow_schema(df.schema)
    target = _for_spark(frame_schema(given, contract, frame))
    file = ship(df.sparkSession, found)
    mapped = _Mapped(msgspec.structs.replace(found, directory=""), settings, frame, file, target)
    return df.mapInArrow(mapped, from_arrow_schema(target))


class _Mapped:
    """What an executor runs over the batches of a partition."""

    def __init__(self, model: Model, settings: Settings, frame: Frame, file: str, schema: pa.Schema) -> None:
        self._said = msgspec.json.encode((model, settings, frame))
        self._file, self._schema = file, schema

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import SparkFiles

        model, settings, frame = msgspec.json.decode(self._said, type=tuple[Model, Settings, Frame])
        archive = Path(SparkFiles.get(self._file))
        loaded = load_once(model, at_home(settings), lambda: unpack(archive, model.digest))
        for batch in batches:
            scored = score_frame(loaded, pa.Table.from_batches([batch]), frame)
            yield from scored.cast(self._schema).combine_chunks().to_batches()


def _for_spark(schema: pa.Schema) -> pa.Schema:
    """In types that Spark has."""
    return pa.schema([pa.field(field.name, _spark_type(field.type)) for field in schema])


_SIGNED = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(),
}


def _spark_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_spark_type(kind.value_type))
    return _SIGNED.get(kind, kind)
