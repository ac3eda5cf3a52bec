"""How many requests per second a key may make: the generic cell rate algorithm (ITU-T I.371), one number a key.

The number is the theoretical arrival time: when the next request would come if requests came evenly. It is a token
bucket without a refill: a request that comes more than the tolerance before it is refused.
"""

from __future__ import annotations


def admit(arrival: float, now: float, *, rate: float, burst: int) -> tuple[float, float]:
    """The new arrival time, and how many seconds to wait: 0 when the request may pass.

    `arrival` and `now` are seconds on one clock. In any stretch of t seconds at most `rate * t + burst` requests
    pass. A clock that went back is noticed by an arrival time farther ahead than any can be; the caller is then held
    to the rate from there, not locked out until the clock catches up.
    """
    interval = 1.0 / rate
    arrival = min(max(arrival, now), now + burst * interval)
    wait = arrival - (burst - 1) * interval - now
    # Sums of many intervals are rounded; who comes a thousandth of one early waited as long as told.
    if wait > interval / 1000:
        return arrival, wait
    return arrival + interval, 0.0
