"""A registered model over a Ray Dataset.

    import fairway.ray

    scored = fairway.ray.score(ray.data.read_parquet("s3://bucket/visits"), "payments", keep=["id"])
    scored.write_parquet("s3://bucket/scored")

The driver finds the model in its registry and puts the bundle into the object store; it is unpacked once a machine and
loaded once a process. Ray's workers need `fairway[ray]` of the same version, and no registry. Answers are the
server's, to the last bit. For files and tables, with rejects by row number and exactly-once output, see
`fairway batch run --engine ray`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from fairway.app.batch import find_model
from fairway.app.home import open_home
from fairway.batch.bundles import at_home, for_workers, load_once, pack, unpack_bytes
from fairway.batch.frames import Frame, OnReject, score_frame
from fairway.batch.local import Model
from fairway.core.errors import MissingExtra
from fairway.core.settings import Settings

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["score"]

BATCH_ROWS = 65_536


def score(
    ds: Dataset,
    model: str,
    *,
    keep: Sequence[str] | None = None,
    on_reject: OnReject = "column",
    batch_rows: int = BATCH_ROWS,
    home: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Dataset:
    """`ds` with the model's outputs: its columns (`keep`: only these), the outputs, and `reject`, which says what is
    wrong with a row that breaks the contract and is null for the others. Lazy, as every Dataset.

    `model` is `payments`, `payments@champion` or `payments:3`. Rows are scored in tasks, not actors, which would hold
    CPUs that reading needs; a process keeps the model for its next task. `options` go to `map_batches`
    (`num_cpus`, `concurrency`, ...). With `on_reject="raise"` there is no column `reject`, and a bad row fails the job.
    Raises what `fairway.load` raises for the model, and MissingExtra.
    """
    try:
        import ray  # the extra `ray`
    except ImportError as error:
        raise MissingExtra(
            "Ray needs the package ray[data].", hint="Install it with: pip install 'fairway[ray]'"
        ) from error
    frame = Frame(None if keep is None else tuple(keep), on_reject)
    with open_home(home) as place, tempfile.TemporaryDirectory(prefix="fairway-ray-") as scratch:
        found = find_model(place, model)
        settings = for_workers(place.settings)
        bundle = ray.put(pack(found, Path(scratch)).read_bytes())
    mapped = _Mapped(msgspec.structs.replace(found, directory=""), settings, frame, bundle)
    return ds.map_batches(mapped.score, batch_format="pyarrow", batch_size=batch_rows, **options)


class _Mapped:
    """What a worker runs over a batch."""

    def __init__(self, model: Model, settings: Settings, frame: Frame, bundle: Any) -> None:
        self._said = msgspec.json.encode((model, settings, frame))
        self._bundle = bundle

    def score(self, table: pa.Table) -> pa.Table:
        import ray

        model, settings, frame = msgspec.json.decode(self._said, type=tuple[Model, Settings, Frame])

        def directory() -> Path:
            return unpack_bytes(lambda: ray.get(self._bundle), model.digest)

        return score_frame(load_once(model, at_home(settings), directory), table, frame)
