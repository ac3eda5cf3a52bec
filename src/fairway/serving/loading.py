"""Waiting, in an event loop, for a model that a request asked for and that is not in memory."""

from __future__ import annotations

import asyncio
import math

from fairway.core.errors import DeadlineExceeded, Overloaded
from fairway.inference.live import LiveModel
from fairway.inference.work import now


async def loaded(
    model: LiveModel, version: str | None, deadline: float | None, patience_seconds: float
) -> LiveModel:
    """The model with the version asked for in memory. `deadline` is on the clock of `time.perf_counter`.

    Raises DeadlineExceeded, Overloaded when it takes longer than `patience_seconds`, or what loading raises."""
    left = math.inf if deadline is None else deadline - now()
    loading = asyncio.wrap_future(model.load_soon(version))
    name = model.route.model
    try:
        # Shielded: the load is everybody's who asked for it.
        return await asyncio.wait_for(asyncio.shield(loading), max(0.0, min(patience_seconds, left)))
    except TimeoutError:
        if left < patience_seconds:
            raise DeadlineExceeded(f"the deadline passed while {name} was being loaded.") from None
        raise Overloaded(
            f"{name} is still being loaded after {patience_seconds:g} s (serving.load_seconds).",
            hint="Try again in a minute.",
        ) from None
