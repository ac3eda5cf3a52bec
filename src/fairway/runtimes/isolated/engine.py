"""`isolated:python`: the user's function, in an environment and processes of its own."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract
from fairway.core.errors import CorruptBundle, ModelFailed
from fairway.core.settings import IsolationSettings
from fairway.runtimes.isolated.environments import Environments, Lease
from fairway.runtimes.isolated.lock import LOCK, Lock, read_lock
from fairway.runtimes.isolated.pool import Pool
from fairway.runtimes.isolated.process import Program

KIND = "isolated:python"


def load(
    directory: Path,
    spec: EngineSpec,
    contract: Contract,
    threads: int,
    *,
    isolation: IsolationSettings,
    name: str = "",
) -> IsolatedEngine:
    """`spec.options`: function, lock (its path), and dtypes (JSON). `name` is how messages call the model.

    Makes the environment if it is not there, and waits for the first process. Raises CorruptBundle for a bad lock and
    EnvironmentFailed when the environment cannot be made or the model does not start in it.
    """
    path = directory / spec.file
    function = spec.options["function"]
    lease = Environments(isolation).use(bundle_lock(directory, spec))
    try:
        return IsolatedEngine(
            Program(
                python=lease.python,
                file=path,
                function=function,
                fields=spec.prepared_fields or tuple(field.name for field in contract),
                dtypes=json.loads(spec.options.get("dtypes", "{}")),
                label=name or f"{path.name}:{function}",
                threads=threads,
                memory_bytes=isolation.memory_bytes,
                buffer_bytes=isolation.buffer_bytes,
            ),
            isolation,
            lease,
        )
    except BaseException:
        lease.close()
        raise


def bundle_lock(directory: Path, spec: EngineSpec) -> Lock:
    """The lock of an unpacked bundle whose model runs in an environment of its own."""
    path = directory / spec.options.get("lock", LOCK)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorruptBundle(f"{path} cannot be read: {error.strerror}.") from error
    return read_lock(content, str(path))


class IsolatedEngine:
    """Calls may wait for a process: never make one in an event loop, whatever earlier ones took."""

    may_block = True

    @property
    def calls_at_once(self) -> int:
        """More calls than this only wait for each other."""
        return max(1, self._settings.processes)

    def __init__(self, run: Program, settings: IsolationSettings, lease: Lease | None = None) -> None:
        self._run = run
        self._settings = settings
        self._lease = lease
        self._forked = threading.Lock()
        self._pool = self._start()

    def predict(self, columns: Columns) -> Outputs:
        """Raises ModelFailed when the function or its process fails, Unavailable while there is no process,
        Overloaded when too many calls wait, and PayloadTooLarge."""
        packed = columns.packed
        arrays: Mapping[str, Array] = {"": packed} if packed is not None else dict(columns)
        outputs = self._here().call(arrays)
        for output, values in outputs.items():
            if values.ndim == 0 or len(values) != columns.rows:
                raise ModelFailed(
                    f"{self._run.label} gave {output!r} of shape {list(values.shape)} for {columns.rows} rows; "
                    "it must give one answer a row."
                )
        return outputs

    def unload(self) -> None:
        """Ends the processes; calls still running fail."""
        if self._pool.pid == os.getpid():
            self._pool.close()
        if self._lease is not None:
            self._lease.close()

    def _start(self) -> Pool:
        settings = self._settings
        pool = Pool(
            self._run,
            processes=max(1, settings.processes),
            queue=settings.queue,
            call_seconds=settings.call_seconds,
            start_seconds=settings.start_seconds,
        )
        pool.start()
        return pool

    def _here(self) -> Pool:
        """This process's pool: after a fork the children are the parent's, and it talks to them."""
        if self._pool.pid != os.getpid():
            with self._forked:
                if self._pool.pid != os.getpid():
                    self._pool = self._start()
        return self._pool
