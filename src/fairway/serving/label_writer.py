"""Labels of one worker on their way to the disk: nobody is told that a label was taken before it is there.

What comes while the disk is busy is written by one call and made safe by one more (group commit), however many requests
it came in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from fairway.core.errors import Overloaded
from fairway.core.label import Label
from fairway.core.settings import LogSettings
from fairway.inference.feedback import Block, Wrong
from fairway.stores.counters import Counters
from fairway.stores.label_log import LabelLog

InThread = Callable[..., Awaitable[Any]]
_LOOK_SECONDS = 10.0


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the rows of one request. `wrong` are the first of the `rejected` ones."""

    accepted: int
    rejected: int = 0
    wrong: tuple[Wrong, ...] = ()


class LabelWriter:
    """Takes labels for `log`; `most_wrong` is how many wrong rows an answer names."""

    def __init__(
        self, log: LabelLog, settings: LogSettings, counters: Counters, in_thread: InThread, most_wrong: int
    ) -> None:
        self._log = log
        self._limit = settings.label_queue
        self._counters = counters
        self._in_thread = in_thread
        self._most_wrong = most_wrong
        self._waiting: list[tuple[list[Label], str, asyncio.Future[None]]] = []
        self._labels = 0
        self._writing: asyncio.Task[None] | None = None

    async def put(self, blocks: Iterable[Block], caller: str) -> Taken:
        """Labels of a small request. Returns when they are on the disk. Raises Overloaded, StorageFull, Unavailable."""
        labels: list[Label] = []
        taken = self._gathered(blocks, labels.extend)
        if labels:
            if self._labels + len(labels) > self._limit:
                raise Overloaded(
                    f"{self._labels} labels wait to be written (log.label_queue).",
                    hint="Try again in a second.",
                )
            safe: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((labels, caller, safe))
            self._labels += len(labels)
            if self._writing is None:
                self._writing = asyncio.create_task(self._write())
            await safe
        self._count(taken)
        return taken

    async def put_many(self, blocks: Iterable[Block], caller: str) -> Taken:
        """As `put`, for many labels: a block at a time is in memory. What was written before an error stays written; to
        send it again does no harm."""
        taken: Taken = await self._in_thread(self._put_many, blocks, caller)
        self._count(taken)
        return taken

    def close(self) -> None:
        self._log.close()

    def _put_many(self, blocks: Iterable[Block], caller: str) -> Taken:
        before = self._log.failures
        taken = self._gathered(blocks, lambda labels: self._log.append(labels, caller, time.time()))
        self._log.sync(before)
        return taken

    def _gathered(self, blocks: Iterable[Block], take: Callable[[list[Label]], None]) -> Taken:
        accepted = rejected = 0
        wrong: list[Wrong] = []
        for block in blocks:
            if block.labels:
                take(block.labels)
            accepted += block.rows - len(block.wrong)
            rejected += len(block.wrong)
            wrong += block.wrong[: self._most_wrong - len(wrong)]
        return Taken(accepted=accepted, rejected=rejected, wrong=tuple(wrong))

    async def _write(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                try:
                    await self._in_thread(
                        self._write_all, [(labels, caller) for labels, caller, _ in waiting]
                    )
                except Exception as error:  # noqa: BLE001 - each request that waits is told
                    for _, _, safe in waiting:
                        if not safe.done():
                            safe.set_exception(error)
                else:
                    for _, _, safe in waiting:
                        if not safe.done():
                            safe.set_result(None)
                self._labels -= sum(len(labels) for labels, _, _ in waiting)
        finally:
            self._writing = None
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._log.close_old)

    def _write_all(self, together: list[tuple[list[Label], str]]) -> None:
        by_caller: dict[str, list[Label]] = {}
        for labels, caller in together:
            by_caller.setdefault(caller, []).extend(labels)
        before = self._log.failures
        for caller, labels in by_caller.items():
            self._log.append(labels, caller, time.time())
        self._log.sync(before)

    def _count(self, taken: Taken) -> None:
        for outcome, rows in (("accepted", taken.accepted), ("rejected", taken.rejected)):
            if rows:
                slot = self._counters.slot("fairway_feedback_labels_total", (("outcome", outcome),))
                self._counters.add(slot, rows)
