"""The request path on one screen: route, validate, run, record.

Every protocol, the Python API and later the batch engines end up here. `infer` is the whole path; an entrance that
must not block takes the same steps apart, and lets `quick` tell it whether `run` may stay in its event loop.

The version is chosen before validation, not after, because versions behind one route share field names and types
but may differ in rules.
"""

from __future__ import annotations

import time

import msgspec

from fairway.core.columns import Columns, Outputs
from fairway.core.errors import InvalidInput, ModelFailed
from fairway.core.request import Answer, Request
from fairway.inference.live import LiveModel, LiveVersion, Table
from fairway.inference.record import Prediction, Recorder
from fairway.inference.stats import count_failure
from fairway.stores.counters import Counters

now = time.perf_counter


class Work(msgspec.Struct, frozen=True, gc=False):
    """A request that passed validation, on its way through the engine. Times are `perf_counter` seconds."""

    request: Request
    version: LiveVersion
    columns: Columns
    received: float
    parsed: float
    validated: float


class Plane:
    """The loaded models, and where predictions and counts go."""

    def __init__(
        self, table: Table, counters: Counters, recorder: Recorder | None, inline_seconds: float
    ) -> None:
        self.table = table
        self.counters = counters
        self._recorder = recorder
        self._inline_seconds = inline_seconds

    def close(self) -> None:
        """Writes what is still to be recorded."""
        if self._recorder is not None:
            self._recorder.close()

    def infer(self, request: Request) -> Answer:
        """One request, start to end. Raises InvalidInput, NotFound or ModelFailed."""
        work = self.prepare(request, now())
        outputs = self.run(work)
        self.finish(work, outputs, now(), now())
        return self.answer(work, outputs)

    def prepare(self, request: Request, received: float) -> Work:
        """Route and validate. `received` is when the request's last byte came, before it was parsed."""
        parsed = now()
        model = self.table[request.model]
        if model.needs_loading(request.version):
            model.load(str(request.version))
        version = model.pick(request.version, request.key or request.request_id)
        try:
            columns = version.validate(request.inputs)
        except InvalidInput as error:
            for problem in error.problems:
                if (
                    problem.field in version.fields
                ):  # a name of the caller's own would be a counter without end
                    version.stats.rejected(problem.field, 1)
            raise
        return Work(request, version, columns, received, parsed, now())

    def short(self, model: LiveModel, wanted: str | None) -> bool:
        """Whether a request may be worth starting in an event loop: nothing to load, one row takes no time."""
        return not model.needs_loading(wanted) and model.primary.cost.expect(1) <= self._inline_seconds

    def quick(self, work: Work) -> bool:
        """Whether this engine call is expected to be short enough for an event loop."""
        return work.version.cost.expect(work.columns.rows) <= self._inline_seconds

    def run(self, work: Work) -> Outputs:
        outputs = work.version.run(work.columns)
        for name, values in outputs.items():
            if len(values) != work.columns.rows:
                raise ModelFailed(
                    f"output {name!r} has {len(values)} rows for {work.columns.rows} rows of input"
                )
        return outputs

    def finish(self, work: Work, outputs: Outputs, ran: float, encoded: float) -> None:
        """Record and count an answered request."""
        version, rows = work.version, work.columns.rows
        stages = (
            work.parsed - work.received,
            work.validated - work.parsed,
            ran - work.validated,
            encoded - ran,
        )
        version.stats.answered(work.request.protocol, rows, stages)
        if self._recorder is not None:
            self._recorder.record(
                Prediction(
                    version.model,
                    version.version,
                    version.digest,
                    work.request.request_id,
                    time.time(),
                    encoded - work.received,
                    work.columns,
                    outputs,
                )
            )

    def answer(self, work: Work, outputs: Outputs) -> Answer:
        version = work.version
        return Answer(
            outputs=outputs,
            rows=work.columns.rows,
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
