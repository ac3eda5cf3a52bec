"""Stretches on Ray Data: a dataset of their numbers, one to a block, through `map_batches`.

Tasks, not actors: an actor holds its CPU while it waits, and as many actors as there are CPUs starve the tasks that
should feed them. A Ray task runs in a process that is used again, and that process keeps the version it has loaded, so
that a version is loaded once a process here too.

The bundle goes to the machines through the object store, is unpacked once a machine, and is named by its digest. Rows do
not go through Ray, for the reasons in `on_spark.py`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fairway.batch.bundles import pack, unpack_bytes
from fairway.batch.local import Model
from fairway.batch.worker import do_tasks
from fairway.core.errors import FairwayError, MissingExtra, SettingsError, Unavailable

_TEXT = 400


def open_ray(address: str) -> tuple[Any, bool]:
    """The module `ray`, connected; and whether that was done here. Raises MissingExtra and Unavailable."""
    try:
        import ray  # the extra `ray`
        import ray.data
    except ImportError as error:
        raise MissingExtra(
            "Ray needs the package ray[data].", hint="Install it with: pip install 'fairway[ray]'"
        ) from error
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(
            address=address or None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=None if address else False,
        )
    except Exception as error:
        raise Unavailable(
            f"no Ray cluster at {address or 'the usual address'}: {_first(error)}",
            hint="Name the cluster with --ray-address host:6379.",
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of every wave
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray, True


class RayCluster:
    """A connected Ray that scores stretches of one run."""

    def __init__(self, ray: Any, model: Model, scratch: Path) -> None:
        """Puts the bundle into the object store. `scratch` is a folder of the driver's."""
        self._ray, self._digest = ray, model.digest
        self._bundle = ray.put(pack(model, scratch).read_bytes())
        self.slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.name = f"ray, {self.slots} slots"
        self._ended = threading.Event()

    def do(self, job: bytes, tasks: Sequence[bytes]) -> list[bytes]:
        if self._ended.is_set():
            return []
        ray, bundle, digest = self._ray, self._bundle, self._digest
        listed = list(tasks)

        def score(batch: pa.Table) -> pa.Table:
            def directory() -> Path:
                return unpack_bytes(lambda: ray.get(bundle), digest)

            numbers = batch.column("id").to_pylist()
            outcomes = [*do_tasks(job, [listed[number] for number in numbers], directory)]
            return pa.table({"outcome": pa.array(outcomes, pa.binary())})

        try:
            numbers = ray.data.range(len(listed), override_num_blocks=len(listed))
            scored = numbers.map_batches(score, batch_format="pyarrow", batch_size=None, num_cpus=1)
            return [bytes(row["outcome"]) for row in scored.iter_rows()]
        except Exception as error:
            raise _lost(error) from error

    def cancel(self) -> None:
        self._ended.set()


def _lost(error: Exception) -> FairwayError:
    if "No module named 'fairway" in str(error):
        return SettingsError(
            "fairway is not installed in the Python of Ray's workers.",
            hint="Install the same version there, or name it in a runtime environment: docs/guides/batch-on-clusters.md.",
        )
    return Unavailable(f"the Ray job failed: {_first(error)}", hint="What was done is kept: resume the run.")


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("at ", "File ", "Traceback", "..."))]
    return " ".join(told)[:_TEXT] or type(error).__name__
