"""Questions to a store that may have to be waited for (Redis): asked from a thread of their own, and all that came while
it was asked are asked together. So a store across a network is never waited for in an event loop, and a busy worker asks
it once for many requests.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import cast

import msgspec

from fairway.core.errors import Overloaded
from fairway.inference.precomputed import Ask, Found, Precomputed, Version

logger = logging.getLogger("fairway.answers")

_MOST = 1024
"""Most requests asked together."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """`done` is called once, from the thread that asked. `cancelled` is asked before that: then nobody waits."""

    ask: Ask
    version: Version
    done: Callable[[Found | Exception], None]
    cancelled: Callable[[], bool]


class LookUps:
    """The questions of one model; at most `limit` wait."""

    def __init__(self, held: Precomputed, limit: int) -> None:
        self._held = held
        self._limit = limit
        self._waiting: deque[Question] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, question: Question) -> None:
        with self._changed:
            if self._closed or len(self._waiting) >= self._limit:
                raise Overloaded(
                    f"{self._limit} requests wait for the precomputed answers of {self._held.model} (serving.queue).",
                    hint="Try again in a second.",
                )
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="fairway-answers", daemon=True)
                self._thread.start()
            self._waiting.append(question)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
            self._ask_all()  # apart, so that no name here holds a version, which is unloaded when nobody does

    def _ask_all(self) -> None:
        with self._changed:
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST))]
        groups: dict[int, list[Question]] = {}
        for question in taken:
            if not question.cancelled():
                groups.setdefault(id(question.version), []).append(question)
        for questions in groups.values():
            self._ask(questions)

    def _ask(self, questions: list[Question]) -> None:
        results: list[Found | Exception]
        try:
            looked = self._held.find_all([question.ask for question in questions], questions[0].version)
            results = cast("list[Found | Exception]", looked.results)
            for row, place in enumerate(looked.together):
                found = cast(Found, results[place])
                outputs = {name: values[row : row + 1] for name, values in looked.outputs.items()}
                results[place] = msgspec.structs.replace(found, outputs=outputs)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, every caller is told something
            results = [error] * len(questions)
        for question, result in zip(questions, results, strict=True):
            try:
                question.done(result)
            except Exception:  # the thread must live on, or nothing would be looked up again
                logger.exception("a look-up for %s could not be told", self._held.model)
