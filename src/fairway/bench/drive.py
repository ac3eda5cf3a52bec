"""One client process's run: lanes, load and alarm put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from fairway.bench.alarm import Alarm, clock
from fairway.bench.http import HttpLanes
from fairway.bench.load import ClosedLoop, Load, OpenLoop
from fairway.bench.plan import Plan
from fairway.bench.recording import Recorder, Tally
from fairway.bench.schedule import schedule

_SWEEP_SECONDS = 0.02
"""How often timeouts are looked for."""


class Lanes(Protocol):
    async def open(self) -> None: ...
    async def close(self) -> None: ...


async def drive(plan: Plan, share: int, start: Callable[[], float]) -> Tally:
    """Opens the connections of process `share`, then calls `start` for the moment (on `clock`) to begin at, and gives
    what was measured. Raises OSError when the server cannot be reached at all."""
    begin = 0.0

    def moment() -> float:
        return clock() - begin

    recorder = Recorder(plan.warmup, plan.slot_seconds, by_end=plan.rate is None)
    load = _load(plan, share, recorder, moment)
    lanes = _lanes(plan, plan.lanes_of(share), load, moment)
    try:
        await lanes.open()
        begin = start()
        busy = await _until_finished(plan, load, moment, begin)
        return recorder.tally(busy)
    finally:
        await lanes.close()


def _load(plan: Plan, share: int, recorder: Recorder, moment: Callable[[], float]) -> Load:
    whole = plan.warmup + plan.seconds
    if plan.rate is None:
        return ClosedLoop(whole, plan.timeout, recorder, moment)
    moments = schedule(plan.arrivals, plan.rate, whole, share=share, shares=plan.processes, seed=plan.seed)
    return OpenLoop(moments, plan.timeout, recorder, moment)


def _lanes(plan: Plan, count: int, load: Load, moment: Callable[[], float]) -> Lanes:
    if not plan.target.protocol.startswith("grpc"):
        return HttpLanes(plan, count, load, moment)
    # grpcio is the extra `bench`, and takes longer to import than all the rest.
    from fairway.bench.grpc import GrpcLanes

    return GrpcLanes(plan, count, load, moment)


async def _until_finished(plan: Plan, load: Load, moment: Callable[[], float], begin: float) -> float:
    """Runs the load to its end; gives the share of a core that this process used over the measured time."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    used: list[float] = []

    def ring() -> None:
        due = load.tick(moment())
        if due is not None:
            alarm.set(begin + due)

    def sweep() -> None:
        now = moment()
        load.expire(now)
        edges = (plan.warmup, plan.warmup + plan.seconds)
        if len(used) < 2 and now >= edges[len(used)]:
            used.append(time.process_time())
        if load.finished(now):
            if not ended.done():
                ended.set_result(None)
        else:
            loop.call_later(_SWEEP_SECONDS, sweep)

    alarm = Alarm(loop, ring)
    try:
        alarm.set(begin)
        loop.call_later(max(begin - clock(), 0.0), sweep)
        await ended
    finally:
        alarm.close()
    if len(used) < 2:
        used.append(time.process_time())
    return (used[-1] - used[0]) / plan.seconds
