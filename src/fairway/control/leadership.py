"""Which of several control processes leads: a lease in the database that is renewed, or taken when it is no longer.

No clock is compared with another. Who wants the lease watches the count of its renewals, and takes it when that has not
changed for the lease's whole time on its own clock. Who has it holds it for less than that, counted from before it asked
for the renewal: so it has stopped leading before another can have begun. What it still writes afterwards, having been
paused at the wrong moment, the store refuses by the token (fencing, as in M. Kleppmann, "How to do distributed locking",
2016; leases after C. Gray and D. Cheriton, "Leases: an efficient fault-tolerant mechanism", SOSP 1989).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from fairway.core.errors import FairwayError, LeaseLost
from fairway.stores.control import ControlStore, Lease

logger = logging.getLogger("fairway.control")

_HELD_SHARE = 0.8
"""Of the lease's time, what its holder relies on: clocks of two machines do not run at quite the same speed."""
RENEWALS = 4
"""How often a lease is renewed in its time."""


def machine_clock() -> float:
    """Seconds that go on while the machine sleeps, the same in all its processes, and that nobody can set."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Leadership:
    """`step` is called again and again by one thread; the rest from any."""

    def __init__(
        self,
        store: ControlStore,
        holder: str,
        *,
        lease_seconds: float,
        clock: Callable[[], float] = machine_clock,
    ) -> None:
        """`holder` is for people: which process it is."""
        self._store = store
        self._holder = holder
        self._seconds = lease_seconds
        self._clock = clock
        self._token = 0
        self._held_until = 0.0
        self._seen: Lease | None = None
        self._seen_at = 0.0
        self.leader = ""
        """Who leads, as far as is known."""
        self.changed = threading.Event()
        """Set whenever this process begins or ceases to lead."""

    @property
    def step_seconds(self) -> float:
        return self._seconds / RENEWALS

    @property
    def token(self) -> int:
        """That of the lease held; raises LeaseLost when it is not held any more."""
        token, until = self._token, self._held_until
        if not token or self._clock() >= until:
            raise LeaseLost("This process does not lead any more.")
        return token

    @property
    def held_until(self) -> float:
        """On `machine_clock`; past when this process does not lead."""
        return self._held_until if self._token else 0.0

    @property
    def leads(self) -> bool:
        return bool(self._token) and self._clock() < self._held_until

    def step(self) -> None:
        """Renews the lease, or looks whether it can be had. A database that is away costs a leader its lease in time."""
        try:
            if self._token:
                self._renew()
            else:
                self._look()
        except LeaseLost:
            self._lose("another process has taken the lease")
        except FairwayError as error:
            if self._token and not self.leads:
                self._lose(str(error))
            raise

    def give_up(self) -> None:
        """Lets another lead at once."""
        token, self._token = self._token, 0
        self.changed.set()
        if token:
            self._store.release_lease(token)

    def _renew(self) -> None:
        if not self.leads:  # slept too long: what was begun may be somebody else's by now
            self._lose("this process was held up for longer than its lease")
            return
        asked = self._clock()
        self._store.renew_lease(self._token)
        self._held_until = asked + _HELD_SHARE * self._seconds

    def _look(self) -> None:
        lease = self._store.lease()
        now = self._clock()  # after reading: the renewal that was read had been written by then
        if lease is not None and lease.holder:
            self.leader = lease.holder
            if self._seen != lease:
                self._seen, self._seen_at = lease, now
                return
            if now - self._seen_at < lease.seconds:
                return
        asked = self._clock()
        taken = self._store.take_lease(self._holder, seconds=self._seconds, seen=lease)
        self._held_until = asked + _HELD_SHARE * self._seconds
        self._token = taken.token
        self._seen = None
        self.leader = self._holder
        logger.info("this control process leads (%s, token %d)", self._holder, taken.token)
        self.changed.set()

    def _lose(self, why: str) -> None:
        if self._token:
            logger.warning("this control process does not lead any more: %s", why)
        self._token, self._seen = 0, None
        self.changed.set()
