"""The request path on one screen: route, validate, batch, run, record.

Every protocol, the Python API and later the batch engines end up here. `infer` is the whole path for one caller who
waits. An entrance that must not block takes the same steps apart: `arrive` and `validate`, then `begin` for a model
that takes long, or `answer_together` for all requests that one turn of an event loop brought.

The version is chosen before validation, not after, because versions behind one route share field names and types
but may differ in rules.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

import msgspec

from fairway.core.columns import Columns, Outputs
from fairway.core.errors import DeadlineExceeded, FairwayError, InvalidInput, Overloaded
from fairway.core.request import Answer, Request
from fairway.core.settings import ModelSettings, Settings
from fairway.inference.cache import ResponseCache, cache_of
from fairway.inference.live import LiveModel, LiveVersion, Table
from fairway.inference.merging import run_together
from fairway.inference.microbatch import MergingQueue, Waiting
from fairway.inference.record import Predictions, Recorder
from fairway.inference.stats import Spent, count_failure, queue_depth
from fairway.stores.counters import Counters

now = time.perf_counter
_PLAIN = ModelSettings()


class Work(msgspec.Struct, gc=False):
    """A request on its way. Times are `perf_counter` seconds; `columns` are there once it is validated."""

    request: Request
    version: LiveVersion
    received: float
    parsed: float
    columns: Columns | None = None
    validated: float = 0.0
    origin: Any = None
    """What an entrance wants to find again with the answer."""

    @property
    def rows(self) -> Columns:
        assert self.columns is not None
        return self.columns


class Ran(msgspec.Struct, frozen=True, gc=False):
    """Requests of one version that one engine call answered. `counts` are each one's rows of `columns` and
    `outputs`, in order."""

    version: LiveVersion
    works: Sequence[Work]
    counts: Sequence[int]
    columns: Columns
    outputs: Outputs
    begun: float
    validated: float
    ended: float


class Plane:
    """The loaded models, and where predictions and counts go."""

    def __init__(
        self, table: Table, counters: Counters, recorder: Recorder | None, settings: Settings
    ) -> None:
        self.table = table
        self.counters = counters
        self.settings = settings
        self._recorder = recorder
        self._threads: ThreadPoolExecutor | None = None
        self._queues: WeakKeyDictionary[LiveVersion, MergingQueue] = WeakKeyDictionary()
        self._caches: dict[str, ResponseCache | None] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Runs what still waits, and writes what is still to be recorded."""
        if self._threads is not None:
            self._threads.shutdown()
        if self._recorder is not None:
            self._recorder.close()

    def infer(self, request: Request) -> Answer:
        """One request, start to end. Raises InvalidInput, NotFound, DeadlineExceeded, Overloaded or ModelFailed."""
        began = now()
        work = self.arrive(request, began)
        self.validate(work)
        if self.quick(work):
            outputs, ended = self.run(work), now()
        else:
            outputs, ended = self._wait(work)
        self.finish(work, outputs, ended, ended)
        return self.answer(work, outputs)

    def arrive(self, request: Request, received: float, model: LiveModel | None = None) -> Work:
        """Route. `received` is when the request's last byte came, before it was parsed. `model` is the one that was
        loaded for it: the table's may have been unloaded again since, and loading it here would take a while."""
        parsed = now()
        model = self.table[request.model] if model is None else model
        if model.needs_loading(request.version):
            model = model.load(request.version, request.deadline)
        return Work(request, model.pick(request.version, request.key or request.request_id), received, parsed)

    def validate(self, work: Work) -> None:
        """Typed columns, or ContractViolation; DeadlineExceeded when nobody waits any more."""
        version = work.version
        try:
            work.columns = version.validate(work.request.inputs)
        except InvalidInput as error:
            for problem in error.problems:
                if (
                    problem.field in version.fields
                ):  # a name of the caller's own would be a counter without end
                    version.stats.rejected(problem.field, 1)
            raise
        work.validated = now()
        if work.request.deadline is not None and work.request.deadline <= work.validated:
            raise DeadlineExceeded("the deadline passed before the model could be run.")

    def quick(self, work: Work) -> bool:
        """Whether this engine call is expected to be short enough for an event loop."""
        return work.rows.rows <= work.version.cost.inline_rows

    def run(self, work: Work) -> Outputs:
        """The engine call, alone and now; or the cache's answer."""
        key, outputs = self._remembered(work)
        if outputs is None:
            (answer,) = run_together(partial(self._call, work.version, 1), [work.rows])
            if isinstance(answer, FairwayError):
                raise answer
            outputs = answer
            self._remember(work, key, outputs)
        return outputs

    def begin(self, work: Work, done: Callable[[Waiting], None]) -> Waiting:
        """Queues a validated request; `done` is called from another thread when it has run or failed. Raises
        Overloaded."""
        key, outputs = self._remembered(work)
        waiting = Waiting(work.rows, done, work.request.deadline)
        if outputs is not None:
            waiting.outputs = outputs
            waiting.began = waiting.ended = now()
            done(waiting)
            return waiting
        if key is not None:
            waiting.done = partial(self._keep_and_tell, work, key, done)
        self._queue(work.version).put(waiting)
        return waiting

    def answer_together(self, works: Sequence[Work]) -> list[Ran | Work | tuple[Work, FairwayError]]:
        """All requests of one version that came at once: validated, merged as far as it pays, and run if that is
        quick.

        Each work is in exactly one Ran, or beside its own error, or alone: then it is valid, all together would
        hold the event loop for too long, and it is to `begin`."""
        version = works[0].version
        begun = now()
        if len(works) > 1 and version.merges and self._cache(version.model) is None:
            hurried = any(work.request.deadline is not None for work in works)
            together = None if hurried else version.validate_together([work.request.inputs for work in works])
            if together is not None and together[0].rows > min(
                version.merge_rows(), version.cost.inline_rows
            ):
                _share_out(works, *together)
            elif together is not None:
                columns, counts = together
                validated = now()
                try:
                    outputs = self._call(version, len(works), columns)
                except FairwayError:
                    outputs = {}
                if outputs and all(len(values) == columns.rows for values in outputs.values()):
                    return [Ran(version, works, counts, columns, outputs, begun, validated, now())]
                _share_out(works, columns, counts)  # one of them is at fault: each is run alone
        return self._answer_each(version, works, begun)

    def _answer_each(
        self, version: LiveVersion, works: Sequence[Work], begun: float
    ) -> list[Ran | Work | tuple[Work, FairwayError]]:
        """Each validated for itself, if it is not yet, then merged as far as it pays."""
        answers: list[Ran | Work | tuple[Work, FairwayError]] = []
        ready: list[Work] = []
        cache = self._cache(version.model)
        for work in works:
            try:
                if work.columns is None:
                    self.validate(work)
            except FairwayError as error:
                answers.append((work, error))
                continue
            _, outputs = self._remembered(work)
            if outputs is not None:
                ended = now()
                answers.append(
                    Ran(version, [work], [work.rows.rows], work.rows, outputs, begun, ended, ended)
                )
            else:
                ready.append(work)
        if sum([work.rows.rows for work in ready]) > version.cost.inline_rows:
            return [*answers, *ready]
        for group in _groups(ready, version.merge_rows()):
            validated = now()
            outcomes = run_together(partial(self._call, version, len(group)), [work.rows for work in group])
            ended = now()
            for work, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, FairwayError):
                    answers.append((work, outcome))
                    continue
                if cache is not None:
                    self._remember(work, cache.key(version.digest, work.rows), outcome)
                answers.append(
                    Ran(version, [work], [work.rows.rows], work.rows, outcome, begun, validated, ended)
                )
        return answers

    def finish(self, work: Work, outputs: Outputs, ended: float, encoded: float, began: float = 0.0) -> None:
        """Record and count an answered request. `began` is when the engine began, if the request had to wait."""
        rows = work.rows
        begun = began or work.validated
        spent = Spent(
            parse=work.parsed - work.received,
            validate=work.validated - work.parsed,
            queue=begun - work.validated,
            run=ended - begun,
            encode=encoded - ended,
        )
        work.version.stats.answered(work.request.protocol, rows.rows, spent, (encoded - work.received,))
        self._record(work.version, [work], [rows.rows], rows, outputs, [encoded - work.received])

    def finish_together(self, ran: Ran, encoded: float) -> None:
        """As `finish`, for all requests of one call and of one protocol at once."""
        works, version = ran.works, ran.version
        count = len(works)
        seconds = [encoded - work.received for work in works]
        parsed = sum([work.parsed for work in works])
        spent = Spent(
            parse=parsed - sum([work.received for work in works]),
            validate=count * (ran.validated - ran.begun),
            queue=count * ran.begun - parsed,
            run=count * (ran.ended - ran.validated),
            encode=count * (encoded - ran.ended),
        )
        version.stats.answered(works[0].request.protocol, ran.columns.rows, spent, seconds)
        self._record(version, works, ran.counts, ran.columns, ran.outputs, seconds)

    def answer(self, work: Work, outputs: Outputs) -> Answer:
        version = work.version
        return Answer(
            outputs=outputs,
            rows=work.rows.rows,
            model=version.model,
            version=version.version,
            digest=version.digest,
            request_id=work.request.request_id,
        )

    def failed(self, model: str, version: str | None, protocol: str, code: str) -> None:
        """Count a request that got an error. Names nobody knows are counted as one, or labels would never end."""
        live = self.table.find(model)
        if live is None:
            model, version = "", None
        elif version is not None and not live.has(version):
            version = None
        count_failure(self.counters, model, version or "", protocol, code)

    def _wait(self, work: Work) -> tuple[Outputs, float]:
        """Through the queue, for a caller whose thread can wait."""
        over = threading.Event()
        waiting = self.begin(work, lambda _: over.set())
        deadline = work.request.deadline
        if not over.wait(None if deadline is None else max(0.0, deadline - now())):
            waiting.cancel()
            raise DeadlineExceeded(f"{work.version.model} did not answer before the deadline.")
        if waiting.error is not None:
            raise waiting.error
        assert waiting.outputs is not None
        return waiting.outputs, waiting.ended

    def _call(self, version: LiveVersion, requests: int, columns: Columns) -> Outputs:
        outputs = version.run(columns)
        version.stats.called(columns.rows, requests)
        return outputs

    def _queue(self, version: LiveVersion) -> MergingQueue:
        with self._lock:
            queue = self._queues.get(version)
            if queue is None:
                own = self.settings.models.get(version.model, _PLAIN)
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(
                        self.settings.serving.threads, thread_name_prefix="fairway-run"
                    )
                queued = _Queued(version, self._call)
                queue = self._queues[version] = MergingQueue(
                    f"{version.model}:{version.version}",
                    queued.run,
                    queued,
                    limit=own.queue or self.settings.serving.queue,
                    runners=min(own.threads or _runners(self.settings), version.calls_at_once),
                    submit=self._threads.submit,
                    count=queue_depth(self.counters, version.model, version.version),
                )
            return queue

    def _cache(self, model: str) -> ResponseCache | None:
        try:
            return self._caches[model]
        except KeyError:
            cache = self._caches[model] = cache_of(self.settings, model, self.counters)
            return cache

    def _remembered(self, work: Work) -> tuple[Any, Outputs | None]:
        """The key to remember the answer by, None for not; and the answer, if it is remembered."""
        cache = self._cache(work.version.model)
        if cache is None:
            return None, None
        key = cache.key(work.version.digest, work.rows)
        return key, None if key is None else cache.find(key)

    def _remember(self, work: Work, key: Any, outputs: Outputs) -> None:
        cache = self._cache(work.version.model)
        if cache is not None and key is not None:
            cache.keep(key, outputs)

    def _keep_and_tell(self, work: Work, key: Any, done: Callable[[Waiting], None], waiting: Waiting) -> None:
        if waiting.outputs is not None:
            self._remember(work, key, waiting.outputs)
        done(waiting)

    def _record(
        self,
        version: LiveVersion,
        works: Sequence[Work],
        counts: Sequence[int],
        columns: Columns,
        outputs: Outputs,
        seconds: Sequence[float],
    ) -> None:
        if self._recorder is not None:
            self._recorder.record(
                Predictions(
                    version.model,
                    version.version,
                    version.digest,
                    [work.request.request_id for work in works],
                    counts,
                    time.time(),
                    seconds,
                    columns,
                    outputs,
                )
            )


def _share_out(works: Sequence[Work], columns: Columns, counts: Sequence[int]) -> None:
    """Gives each request its rows of what was validated together."""
    validated, begin = now(), 0
    for work, count in zip(works, counts, strict=True):
        work.columns = columns.take(slice(begin, begin + count))
        work.validated = validated
        begin += count


class _Queued:
    """A version as its queue sees it. Who waits holds the version, the queue does not: when nobody waits and nothing
    routes to it any more, it goes."""

    def __init__(self, version: LiveVersion, call: Callable[[LiveVersion, int, Columns], Outputs]) -> None:
        self._version = ref(version)
        self._call = call

    def run(self, columns: Columns) -> Outputs:
        version = self._version()
        if version is None:
            raise Overloaded("this version is not loaded any more.", hint="Try again.")
        return self._call(version, 1, columns)

    def merged(self, requests: int) -> None:
        version = self._version()
        if version is not None:
            version.stats.merged(requests)

    def merge_rows(self) -> int:
        version = self._version()
        return 1 if version is None else version.merge_rows()


def _groups(works: Sequence[Work], most_rows: int) -> list[list[Work]]:
    """Works in order, as many together as have at most `most_rows` rows."""
    groups: list[list[Work]] = []
    rows = math.inf
    for work in works:
        rows += work.rows.rows
        if rows > most_rows:
            groups.append([])
            rows = work.rows.rows
        groups[-1].append(work)
    return groups


def _runners(settings: Settings) -> int:
    """Engine calls at once: one for each core that a worker has to itself."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (settings.serving.workers * settings.serving.engine_threads))
