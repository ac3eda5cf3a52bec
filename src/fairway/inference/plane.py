"""The request path on one screen: route, validate, batch, run, record.

Every protocol, the Python API and later the batch engines end up here. `infer` is the whole path for one caller who
waits. An entrance that must not block takes the same steps apart: `arrive` and `validate`, then `begin` for a model
that takes long, or `answer_together` for all requests that one turn of an event loop brought.

The version is chosen before validation, not after, because versions behind one route share field names and types
but may differ in rules.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fairway.core.columns import Columns, Outputs
from fairway.core.errors import DeadlineExceeded, FairwayError, InvalidInput, Overloaded
from fairway.core.request import Answer, Request
from fairway.core.settings import Settings
from fairway.inference.ahead import Ahead
from fairway.inference.cache import ResponseCache, cache_of
from fairway.inference.hybrid import Hybrid, only_keys
from fairway.inference.live import LiveModel, LiveVersion, Table
from fairway.inference.merging import joined, run_together
from fairway.inference.microbatch import Waiting
from fairway.inference.predictions import Predictions
from fairway.inference.queues import Queues
from fairway.inference.record import Recorder
from fairway.inference.repository import LogHealth
from fairway.inference.stats import Spent, count_failure
from fairway.inference.work import Outcome, Ran, Together, Work, calls_of, groups_of, now, share_out
from fairway.stores.counters import Counters


class Plane:
    """The loaded models, and where predictions and counts go."""

    def __init__(
        self, table: Table, counters: Counters, recorder: Recorder | None, settings: Settings
    ) -> None:
        self.table = table
        self.counters = counters
        self.settings = settings
        self._recorder = recorder
        self._queues = Queues(settings, counters, self._call)
        self._caches: dict[str, ResponseCache | None] = {}
        self._ahead = Ahead(Hybrid(settings, counters), self.validate, self._answer_live)

    def close(self) -> None:
        """Runs what still waits, and writes what is still to be recorded."""
        self._ahead.stored.close()
        self._queues.close()
        if self._recorder is not None:
            self._recorder.close()

    def infer(self, request: Request) -> Answer:
        """One request, start to end. Raises InvalidInput, NotFound, DeadlineExceeded, Overloaded or ModelFailed."""
        began = now()
        work = self.arrive(request, began)
        self.validate(work)
        outputs = self._ahead.look_up_now(work) if work.version.key_name else None
        ended = now()
        if outputs is None:
            try:
                if self.quick(work):
                    outputs, ended = self.run(work), now()
                else:
                    outputs, ended = self._wait(work)
            except Overloaded:
                if not self._ahead.fall_back(work):
                    raise
                outputs, ended = self._ahead.look_up_now(work), now()
                assert outputs is not None
        self.finish(work, outputs, ended, ended)
        if self._recorder is not None:
            self._recorder.gather()  # inputs and outputs are the caller's, who may change them
        self.commit()
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
        keyed = only_keys(work.request) if version.key_name else None
        try:
            work.columns = version.validate(work.request.inputs) if keyed is None else keyed
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
        """Queues a validated request; `done` is called from another thread when it has run or failed. Of a model with
        precomputed answers it is looked up first: then there are neither outputs nor an error when the model is to be
        run, and it is to begin again. Raises Overloaded."""
        if work.version.key_name and work.found is None:
            return self._ahead.look_up(work, done)
        key, outputs = self._remembered(work)
        waiting = Waiting(work.rows, done, work.request.deadline)
        if outputs is not None:
            waiting.outputs = outputs
            waiting.began = waiting.ended = now()
            done(waiting)
            return waiting
        if key is not None:
            waiting.done = partial(self._keep_and_tell, work, key, done)
        self._queues.of(work.version).put(waiting)
        return waiting

    def begin_together(self, group: Together, done: Callable[[Waiting], None]) -> None:
        """Queues requests that were validated as one, as `begin` does. When their call fails, each is to `begin` for
        itself, so that what is wrong with one is its own; `share_out` gives it its rows."""
        waiting = Waiting(group.columns, done, requests=len(group.works))
        self._queues.of(group.version).put(waiting)

    def hold(self, version: LiveVersion, holding: int) -> None:
        """One more request waits outside the queue for the version's next call, where `holding` do. Raises
        Overloaded."""
        self._queues.of(version).admit(holding)

    def let_go(self, version: LiveVersion, held: int) -> None:
        """So many wait outside the queue no more."""
        self._queues.of(version).let_go(held)

    def calls_at_once(self, version: LiveVersion) -> int:
        return self._queues.of(version).runners

    def answer_together(self, works: Sequence[Work]) -> list[Outcome]:
        """All requests of one version that came at once: validated, merged as far as it pays, and run if that is
        quick.

        Each work is in exactly one outcome."""
        version = works[0].version
        begun = now()
        if version.key_name:
            return self._ahead.answer(version, works, begun)
        slow = version.cost.inline_rows < 1
        if (len(works) > 1 or slow) and version.merges and self._cache(version.model) is None:
            hurried = any(work.request.deadline is not None for work in works)
            together = None if hurried else version.validate_together([work.request.inputs for work in works])
            if together is not None:
                columns, counts = together
                validated = now()
                if columns.rows > version.cost.inline_rows and version.merge_rows() > 1:
                    return [*calls_of(version, works, columns, counts, begun, validated)]
                if columns.rows <= min(version.merge_rows(), version.cost.inline_rows):
                    try:
                        outputs = self._call(version, len(works), columns)
                    except FairwayError:
                        outputs = {}
                    if outputs and all(len(values) == columns.rows for values in outputs.values()):
                        return [Ran(version, works, counts, columns, outputs, begun, validated, now())]
                share_out(works, columns, counts, validated)
        return self._answer_each(version, works, begun)

    def _answer_live(self, version: LiveVersion, live: list[Work], begun: float) -> list[Outcome]:
        """By the model, validated requests of a version with precomputed answers: in one call where that is quick."""
        counts = [work.rows.rows for work in live]
        most = min(version.merge_rows(), version.cost.inline_rows)
        if len(live) > 1 and sum(counts) <= most and self._cache(version.model) is None:
            columns = joined([work.rows for work in live])
            validated = now()
            try:
                outputs = self._call(version, len(live), columns)
            except FairwayError:
                outputs = {}  # one of them is at fault: each is run alone
            if outputs and all(len(values) == columns.rows for values in outputs.values()):
                return [Ran(version, live, counts, columns, outputs, begun, validated, now())]
        return self._answer_each(version, live, begun)

    def fall_back(self, work: Work) -> bool:
        """See `Ahead.fall_back`."""
        return self._ahead.fall_back(work)

    def _answer_each(self, version: LiveVersion, works: Sequence[Work], begun: float) -> list[Outcome]:
        """Each validated for itself, if it is not yet, then merged as far as it pays."""
        answers: list[Outcome] = []
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
        for group in groups_of(ready, version.merge_rows()):
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
        if work.found is not None:
            self._ahead.stored.answered(work.version.model, (work.found,))
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
            queue=count * (ran.begun + ran.waited) - parsed,
            run=count * (ran.ended - ran.validated - ran.waited),
            encode=count * (encoded - ran.ended),
        )
        version.stats.answered(works[0].request.protocol, ran.columns.rows, spent, seconds)
        if version.key_name:
            self._ahead.stored.answered(
                version.model, [work.found for work in works if work.found is not None]
            )
        self._record(version, works, ran.counts, ran.columns, ran.outputs, seconds)

    def answer(self, work: Work, outputs: Outputs) -> Answer:
        version, found = work.version, work.found
        return Answer(
            outputs=outputs,
            rows=work.rows.rows,
            model=version.model,
            version=version.version,
            digest=version.digest,
            request_id=work.request.request_id,
            source="" if found is None else found.source.value,
            age=0.0 if found is None else found.age,
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
        if self._recorder is None:
            return
        stats = version.stats
        self._recorder.record(
            Predictions(
                version.logged,
                [work.request for work in works],
                counts,
                time.time(),
                seconds,
                columns,
                outputs,
                ["live" if work.found is None else work.found.source.value for work in works]
                if version.key_name
                else None,
                stats.take_noted() if stats.noted else None,
            )
        )

    def commit(self) -> None:
        """Before answers go out: in the log's durable mode, returns when their predictions are on the disk."""
        if self._recorder is not None:
            self._recorder.commit()

    @property
    def log_health(self) -> LogHealth | None:
        """None when nothing is recorded."""
        return None if self._recorder is None else self._recorder.health
