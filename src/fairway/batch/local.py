"""What the local engine's scorers are: a loaded version, in this process or in each of several."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from fairway.batch.engine import scorers, threads_scale
from fairway.batch.run import Work
from fairway.batch.score import Calls, ForLog, Scored, score
from fairway.batch.seen import Watch
from fairway.batch.source import parse
from fairway.core.conform import to_columns
from fairway.core.settings import Settings
from fairway.inference.live import LiveVersion, load_version
from fairway.packaging.profile import Profile
from fairway.stores.counters import Counters

_NO_LIMIT = 2**62
_VALUE_BYTES = 4
_WORTH_SECONDS = 6.0
"""A process of scorers takes seconds to start: imports, and the model."""


class Model(msgspec.Struct, frozen=True):
    """A registered version, and where its bundle is unpacked."""

    name: str
    version: int
    digest: str
    directory: str


class Scorer:
    """Scores pieces of files with a loaded version. Called from several threads."""

    def __init__(
        self,
        live: LiveVersion,
        kept: pa.Schema,
        call_rows: int,
        watch: Watch | None = None,
        for_log: ForLog | None = None,
    ) -> None:
        self._live, self._kept, self._call_rows, self._watch = live, kept, call_rows, watch
        self._for_log = for_log

    def __call__(self, work: Work) -> Scored:
        assert work.piece is not None, "the end of a file is not scored"
        parsed = parse(work.piece, work.file, self._live.contract, self._kept)
        return score(self._live, parsed, call_rows=self._call_rows, watch=self._watch, for_log=self._for_log)


def load_for_batch(model: Model, settings: Settings, workers: int) -> LiveVersion:
    """As the server loads it, without the limits of a request. Raises what `load_version` raises."""
    limits = msgspec.structs.replace(settings.limits, rows=_NO_LIMIT, problems=_NO_LIMIT)
    isolation = msgspec.structs.replace(settings.isolation, processes=workers)
    settings = msgspec.structs.replace(settings, limits=limits, isolation=isolation)
    return load_version(model.name, model.version, Path(model.directory), Counters(), settings)


def open_watch(model: Model, live: LiveVersion) -> Watch:
    """What counts the rows beside the version's reference profile."""
    content = (Path(model.directory) / "profile.json").read_bytes()
    return Watch(live.contract, msgspec.json.decode(content, type=Profile))


def wants_processes(live: LiveVersion, calls: Calls, workers: int, input_bytes: int) -> bool:
    """Whether threads would stand in each other's way, measured on calls of the size to come; not for a run (of
    `input_bytes`, 0 when that is not known) that ends before processes have started. ONNX Runtime lets go of Python's
    lock while it computes, so there is nothing to measure."""
    rows = input_bytes / (_VALUE_BYTES * max(1, len(live.contract.inputs)))
    if input_bytes and rows * calls.seconds_a_row < _WORTH_SECONDS:
        return False
    golden, spec = live.bundle.golden.inputs, live.bundle.spec
    if workers < 2 or not golden or getattr(live.engine, "may_block", False):
        return False
    if spec.kind == "onnx" and spec.prepare is None:
        return False
    columns = to_columns(live.contract, golden)
    columns = columns.take(np.arange(calls.rows) % columns.rows)
    return not threads_scale(lambda: live.run(columns))


def score_work(work: Work) -> Scored | None:
    """In a process of scorers: what `Scorer` gives. The end of a file is nobody's."""
    assert _here, "begin_process comes first"
    return _here[0](work) if work.piece is not None else None


_here: list[Scorer] = []
"""The scorer of this process, when it is one of several."""


def begin_process(model: bytes, settings: bytes, schema: str, call_rows: int, log: str) -> None:
    """Loads the version in a process of scorers."""
    version = msgspec.json.decode(model, type=Model)
    live = load_for_batch(version, msgspec.json.decode(settings, type=Settings), 1)
    kept = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(schema)))
    _here[:] = [Scorer(live, kept, call_rows, open_watch(version, live), for_log(live, log))]


def for_log(live: LiveVersion, column: str) -> ForLog | None:
    """What goes to the log, by the version's own share; nothing without a column of keys."""
    return ForLog(column, live.logged.sample) if column else None


def open_scorers(
    model: Model,
    live: LiveVersion,
    settings: Settings,
    *,
    watch: Watch,
    schema: str,
    call_rows: int,
    workers: int,
    processes: bool,
    log: str = "",
) -> tuple[AbstractContextManager[Executor], Callable[[Work], Scored | None]]:
    """The pool and what runs in it. `log` is the column of keys, where rows go to the log."""
    if processes:
        arguments = (msgspec.json.encode(model), msgspec.json.encode(settings), schema, call_rows, log)
        return scorers(workers, processes=True, begin=begin_process, arguments=arguments), score_work
    kept = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(schema)))
    scorer = Scorer(live, kept, call_rows, watch, for_log(live, log))
    return scorers(workers, processes=False), lambda work: scorer(work) if work.piece is not None else None
