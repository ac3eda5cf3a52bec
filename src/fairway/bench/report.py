"""The figures of a run, and what must be said about them so that nobody is misled."""

from __future__ import annotations

import msgspec

from fairway.bench.histogram import Counted, Histogram
from fairway.bench.plan import Plan
from fairway.bench.recording import OK, TIMEOUT, Tally

CURVE = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 1.0)
_KEPT_UP = 0.98
"""Share of the wanted rate below which a server did not keep up."""
_GROWTH = 3.0
"""The last quarter's median latency over the first's from which a backlog must have been growing."""
_GROWN_SECONDS = 0.02
_BUSY = 0.9
"""Share of a core from which a client process itself may have been what was slow."""
_LAG_SECONDS = 0.002
_WAITED = 0.01

CLOSED_NOTE = (
    "Closed loop: each connection sends its next request only after an answer, so a slow server is asked less. These "
    "latencies leave out everybody who would have come meanwhile; for latencies as callers meet them, set --rate."
)


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds."""

    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time: requests that were due in it. Seconds from the start of measuring."""

    at: float
    rate: float
    """Answered, a second."""
    p50: float
    p99: float
    max: float
    failed: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`latency` counts every 2xx and every timeout, from when it was due (open loop) or sent (closed loop); `service`
    every 2xx from when it was sent; `client_lag` how late the client was to send. Rates are a second;
    `wanted_rate` is None for the closed loop. `errors` are counts by status or reason. `curve` has pairs of a share
    of the requests and the seconds that it did not exceed. `warnings` are sentences."""

    address: str
    body: str
    body_bytes: int
    rows: int | None
    loop: str
    arrivals: str | None
    connections: int
    processes: int
    seconds: float
    warmup: float
    timeout: float
    wanted_rate: float | None
    achieved_rate: float
    rows_rate: float | None
    requests: int
    ok: int
    errors: dict[str, int]
    latency: Latencies
    service: Latencies
    client_lag: Latencies
    client_busy: float
    waited: int
    reconnected: int
    curve: list[tuple[float, float]]
    over_time: list[Moment]
    notes: list[str]
    warnings: list[str]


def make_report(plan: Plan, tally: Tally) -> Report:
    ok = tally.outcomes.get(OK, 0)
    elapsed = max(tally.measured_seconds, plan.seconds)
    latency = Histogram.of(tally.latency)
    over_time = _over_time(plan, tally)
    rows = plan.payload.rows
    return Report(
        address=plan.target.address,
        body=plan.payload.source,
        body_bytes=round(sum(map(len, plan.payload.bodies)) / len(plan.payload.bodies)),
        rows=rows,
        loop="closed" if plan.rate is None else "open",
        arrivals=None if plan.rate is None else plan.arrivals.value,
        connections=plan.connections,
        processes=plan.processes,
        seconds=plan.seconds,
        warmup=plan.warmup,
        timeout=plan.timeout,
        wanted_rate=plan.rate,
        achieved_rate=ok / elapsed,
        rows_rate=None if rows is None else ok * rows / elapsed,
        requests=sum(tally.outcomes.values()),
        ok=ok,
        errors={name: count for name, count in sorted(tally.outcomes.items()) if name != OK},
        latency=_latencies(tally.latency),
        service=_latencies(tally.service),
        client_lag=_latencies(tally.lag),
        client_busy=tally.busiest,
        waited=tally.waited,
        reconnected=tally.reconnected,
        curve=list(zip(CURVE, latency.quantiles(list(CURVE)), strict=True)),
        over_time=over_time,
        notes=[CLOSED_NOTE] if plan.rate is None else [],
        warnings=warnings(plan, tally, over_time),
    )


def warnings(plan: Plan, tally: Tally, over_time: list[Moment]) -> list[str]:
    """What to know before believing the figures."""
    requests = sum(tally.outcomes.values())
    if not requests:
        return ["No request fell into the measured time: measure longer, or at a higher rate."]
    found = []
    failed = requests - tally.outcomes.get(OK, 0)
    if failed:
        found.append(f"{failed:,} of {requests:,} requests failed ({failed / requests:.2%}).")
    if tally.outcomes.get(TIMEOUT):
        found.append(
            f"Timeouts are counted in the latencies at {plan.timeout:g} s, when they were given up: what they would have "
            "taken is more."
        )
    slow_client = _slow_client(plan, tally)
    if slow_client:
        found.append(slow_client)
    if plan.rate is not None:
        found += _saturation(plan, tally, over_time, requests)
    if tally.reconnected > max(0.01 * requests, plan.connections):
        found.append(
            f"{tally.reconnected:,} connections had to be made again: the server, or something before it, closes them."
        )
    return found


def _saturation(plan: Plan, tally: Tally, over_time: list[Moment], requests: int) -> list[str]:
    found = []
    elapsed = max(tally.measured_seconds, plan.seconds)
    wanted = requests / plan.seconds  # what was due; a Poisson schedule is never exactly at its rate
    answered = tally.outcomes.get(OK, 0) / elapsed
    growing = _growing(over_time)
    if answered < _KEPT_UP * wanted or growing:
        how = (
            "its latency kept growing"
            if growing
            else f"it answered {answered:,.0f} of {wanted:,.0f} requests a second"
        )
        found.append(
            f"Saturated: {how}. At this rate latencies tell how long the test ran, not how quick the server is: lower "
            "--rate until it keeps up."
        )
    if tally.waited > _WAITED * requests:
        found.append(
            f"{tally.waited / requests:.1%} of the requests were due when all {plan.connections} connections were busy, and "
            "waited in the client; that is in their latency. If callers would have had connections of their own, raise "
            "--connections."
        )
    return found


def _slow_client(plan: Plan, tally: Tally) -> str:
    lag = Histogram.of(tally.lag)
    late = lag.quantile(0.99)
    if tally.busiest >= _BUSY:
        return (
            f"The client was the bottleneck: one of its processes used {tally.busiest:.0%} of a core. The server may do "
            "more: use --processes, or another machine."
        )
    if plan.rate is not None and late > max(_LAG_SECONDS, Histogram.of(tally.latency).quantile(0.5) / 2):
        return (
            f"The client was late: one request in a hundred was sent {late * 1e3:.1f} ms or more after it was due, though "
            "a connection was free. That is in the latencies: give the client a core of its own."
        )
    return ""


def _growing(over_time: list[Moment]) -> bool:
    """Whether latency rose from the first quarter of the run to the last, as a backlog without end makes it."""
    medians = [moment.p50 for moment in over_time if moment.p50 > 0]
    quarter = len(medians) // 4
    if not quarter:
        return False
    first, last = sorted(medians[:quarter])[quarter // 2], sorted(medians[-quarter:])[quarter // 2]
    return last > max(_GROWTH * first, _GROWN_SECONDS)


def _over_time(plan: Plan, tally: Tally) -> list[Moment]:
    moments = []
    for place, slot in enumerate(tally.slots):
        histogram = Histogram.of(slot.latency)
        p50, p99 = histogram.quantiles([0.5, 0.99])
        length = min(plan.slot_seconds, plan.seconds - place * plan.slot_seconds)
        moments.append(
            Moment(
                at=place * plan.slot_seconds,
                rate=histogram.count / length if length > 1e-9 else 0.0,
                p50=p50,
                p99=p99,
                max=histogram.largest,
                failed=slot.failed,
            )
        )
    return moments


def _latencies(counted: Counted) -> Latencies:
    histogram = Histogram.of(counted)
    p50, p90, p99, p999 = histogram.quantiles([0.5, 0.9, 0.99, 0.999])
    return Latencies(mean=histogram.mean, p50=p50, p90=p90, p99=p99, p999=p999, max=histogram.largest)
