"""Requests of models with precomputed answers: what was computed ahead where it may be given, else the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairway.core.columns import Columns, Outputs
from fairway.core.errors import FairwayError
from fairway.inference.freshness import Source
from fairway.inference.hybrid import Hybrid, ask_of
from fairway.inference.live import LiveVersion
from fairway.inference.microbatch import Waiting
from fairway.inference.precomputed import UNKEYED, Ask, Found
from fairway.inference.work import Outcome, Ran, Work, now, share_out


class Ahead:
    """`validate` gives a request its columns; `answer_live` runs the model for requests of one version that have theirs,
    of which validating began at a moment."""

    def __init__(
        self,
        stored: Hybrid,
        validate: Callable[[Work], None],
        answer_live: Callable[[LiveVersion, list[Work], float], list[Outcome]],
    ) -> None:
        self.stored = stored
        self._validate = validate
        self._answer_live = answer_live

    def answer(self, version: LiveVersion, works: Sequence[Work], begun: float) -> list[Outcome]:
        """What was computed ahead where it may be given; the model runs for the others. What would have to be waited for
        is to `begin`."""
        answers: list[Outcome] = []
        live: list[Work] = []
        asked: list[Work] = []
        asks: list[Ask] = []
        model, hybrid = version.model, self.stored
        sent = [work for work in works if work.columns is None and work.request.inputs]
        if len(sent) > 1 and not any(work.request.deadline is not None for work in sent):
            together = version.validate_together([work.request.inputs for work in sent])
            if together is not None:
                share_out(sent, *together, now())
        for work in works:
            try:
                if work.columns is None:
                    self._validate(work)
                if work.found is not None:
                    live.append(work)
                    continue
                ask = ask_of(work.request, work.rows, overloaded=False)
            except FairwayError as error:
                answers.append((work, error))
                continue
            if ask is None:
                work.found = UNKEYED
                live.append(work)
            elif hybrid.waits(model, ask):
                answers.append(work)
            else:
                asked.append(work)
                asks.append(ask)
        if asked:
            looked = hybrid.find_all(model, asks, version)
            ended = now()
            for work, result in zip(asked, looked.results, strict=True):
                if isinstance(result, FairwayError):
                    answers.append((work, result))
                    continue
                work.found = result
                if result.source is Source.live:
                    live.append(work)
                elif result.outputs is not None:
                    rows = work.rows
                    answers.append(
                        Ran(version, [work], [rows.rows], rows, result.outputs, begun, ended, ended)
                    )
            if looked.together:
                fresh = [asked[place] for place in looked.together]
                rows = Columns((), len(fresh), arrays=())
                answers.append(
                    Ran(version, fresh, [1] * len(fresh), rows, looked.outputs, begun, ended, ended)
                )
        return [*answers, *self._answer_live(version, live, begun)] if live else answers

    def fall_back(self, work: Work) -> bool:
        """Has what was computed ahead stand in for a model that is overloaded. True where that may be: the request is to
        `begin` again, once, which finds an answer or that there is none."""
        if not work.version.key_name or work.overloaded or work.found is UNKEYED or work.columns is None:
            return False
        work.overloaded, work.found = True, None
        return True

    def look_up(self, work: Work, done: Callable[[Waiting], None]) -> Waiting:
        """Finds out who answers, in a thread where that has to be waited for."""
        version = work.version
        waiting = Waiting(work.rows, done, work.request.deadline)

        def found(result: Found | Exception) -> None:
            if isinstance(result, Exception):
                waiting.error = result
            else:
                work.found, waiting.outputs = result, result.outputs
            waiting.began = waiting.ended = now()
            if not waiting.cancelled:
                done(waiting)

        ask = ask_of(work.request, work.rows, overloaded=work.overloaded)
        if ask is None:
            found(UNKEYED)
        elif self.stored.waits(version.model, ask):
            self.stored.begin(version.model, ask, version, found, lambda: waiting.cancelled)
        else:
            try:
                found(self.stored.find(version.model, ask, version))
            except FairwayError as error:
                found(error)
        return waiting

    def look_up_now(self, work: Work) -> Outputs | None:
        """For a caller whose thread can wait; None when the model answers."""
        ask = ask_of(work.request, work.rows, overloaded=work.overloaded)
        version = work.version
        work.found = UNKEYED if ask is None else self.stored.find(version.model, ask, version)
        return work.found.outputs
