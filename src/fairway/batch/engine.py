"""The local engine: one thread reads, several threads or processes parse and score, the caller writes.

At most a few chunks a scorer are between reading and writing: who is ahead waits for who is behind, so memory is the
same for any size of input. Chunks come out in the order they were read in.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, Queue
from typing import TypeVar

from fairway.batch.score import Scored
from fairway.core.errors import ModelFailed

_A = TypeVar("_A")
_B = TypeVar("_B")
_POLL_SECONDS = 0.1
_MOST_CALLS = 1000
_TRIES = 3
_WORTH = 1.4
"""Two threads that together are so much quicker than one do not stand in each other's way."""


def in_order(
    pool: Executor, source: Generator[_A], score: Callable[[_A], _B], *, ahead: int
) -> Generator[tuple[_A, Future[_B]]]:
    """Every item of `source`, read in a thread of its own, with the call that scores it, in order; at most `ahead`
    of them at once. What `source` raises is raised here, after what came before it."""
    ready: Queue[tuple[_A, Future[_B]] | BaseException | None] = Queue(maxsize=ahead)
    room = threading.Semaphore(ahead)
    ended = threading.Event()

    def read() -> None:
        last: BaseException | None = None
        try:
            while not ended.is_set():
                if not room.acquire(timeout=_POLL_SECONDS):
                    continue
                item = next(source, None)
                if item is None:
                    break
                ready.put((item, pool.submit(score, item)))
        except BaseException as error:  # noqa: BLE001 - it is raised where the chunks are waited for
            last = error
        try:
            source.close()
        except BaseException as error:  # noqa: BLE001 - nor must this one keep who waits from being told
            last = last or error
        ready.put(last)

    reader = threading.Thread(target=read, name="batch-reader", daemon=True)
    reader.start()
    is_reading = True
    try:
        while True:
            found = ready.get()
            if not isinstance(found, tuple):
                is_reading = False  # that was the last it says
                if found is not None:
                    raise found
                return
            yield found
            room.release()
    finally:
        ended.set()
        while is_reading and reader.is_alive():
            room.release()
            try:
                left = ready.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            if isinstance(left, tuple):
                left[1].cancel()
            else:
                is_reading = False
        reader.join()


@contextmanager
def scorers(
    workers: int,
    *,
    processes: bool,
    begin: Callable[..., None] | None = None,
    arguments: tuple[object, ...] = (),
) -> Iterator[Executor]:
    """A pool of threads, or of processes of which each calls `begin(*arguments)` first."""
    if not processes:
        with ThreadPoolExecutor(workers, thread_name_prefix="batch-scorer") as pool:
            yield pool
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(os.getpid(), begin, arguments)
    ) as pool:
        yield pool


def _begin(parent: int, begin: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    """A process of scorers ends with the one that started it, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if begin is not None:
        begin(*arguments)


def result_of(call: Future[Scored | None]) -> Scored | None:
    """What the call gave. Raises what it raised; ModelFailed when its process died."""
    try:
        return call.result()
    except BrokenExecutor as error:
        raise ModelFailed("a process that scores rows died.") from error


def threads_scale(
    call: Callable[[], object], *, seconds: float = 0.1, clock: Callable[[], float] = time.perf_counter
) -> bool:
    """Whether two threads make `call` quicker than one does: not so for models that hold Python's lock. The quickest of
    several tries counts, because others may use the cores too."""

    def several(times: int) -> None:
        for _ in range(times):
            call()

    ones, boths = [], []
    calls = 0
    with ThreadPoolExecutor(2) as pool:
        for _ in range(_TRIES):
            began = clock()
            done = 0
            while done < calls or not calls:
                call()
                done += 1
                if not calls and (done >= _MOST_CALLS or clock() - began >= seconds):
                    calls = done
            ones.append(clock() - began)
            began = clock()
            list(pool.map(several, (calls, calls)))
            boths.append(clock() - began)
    return 2 * min(ones) >= _WORTH * min(boths)
