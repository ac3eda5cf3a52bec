"""Leases on clocks moved by hand. Each process has a clock of its own; none knows another's."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.control.leadership import RENEWALS, Leadership, machine_clock
from fairway.core.errors import LeaseLost, RegistryUnavailable
from fairway.stores.control_memory import MemoryControlStore

SECONDS = 8.0


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Away(MemoryControlStore):
    """A database that is away while `away` says so."""

    away = False

    def renew_lease(self, token: int, name: str = "control") -> None:
        if self.away:
            raise RegistryUnavailable("away")
        super().renew_lease(token, name)


@dataclass
class Process:
    store: MemoryControlStore
    name: str
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.lead = Leadership(self.store, self.name, lease_seconds=SECONDS, clock=self.clock)


def test_the_first_leads_and_a_second_waits() -> None:
    store = MemoryControlStore()
    a, b = Process(store, "a"), Process(store, "b", Clock(5.0))
    a.lead.step()
    b.lead.step()
    assert (a.lead.leads, b.lead.leads) == (True, False)
    assert a.lead.token == 1
    assert b.lead.leader == "a"
    with pytest.raises(LeaseLost):
        _ = b.lead.token


def test_a_leader_that_renews_is_never_followed() -> None:
    store = MemoryControlStore()
    a, b = Process(store, "a"), Process(store, "b", Clock(5.0))
    for _ in range(40):
        a.lead.step()
        b.lead.step()
        a.clock.now += SECONDS / RENEWALS
        b.clock.now += SECONDS / RENEWALS
    assert (a.lead.leads, b.lead.leads, a.lead.token) == (True, False, 1)


def test_one_that_died_is_followed_after_the_lease_has_run_out_on_the_others_clock() -> None:
    store = MemoryControlStore()
    a, b = Process(store, "a"), Process(store, "b", Clock(5.0))
    a.lead.step()
    b.lead.step()
    b.clock.now += SECONDS - 0.1
    b.lead.step()
    assert not b.lead.leads
    b.clock.now += 0.1
    b.lead.step()
    assert b.lead.leads
    assert b.lead.token == 2


def test_one_that_gives_up_is_followed_at_once() -> None:
    store = MemoryControlStore()
    a, b = Process(store, "a"), Process(store, "b")
    a.lead.step()
    b.lead.step()
    a.lead.give_up()
    assert not a.lead.leads
    b.lead.step()
    assert b.lead.token == 2


def test_one_that_slept_through_its_lease_does_not_lead_when_it_wakes() -> None:
    store = MemoryControlStore()
    a, b = Process(store, "a"), Process(store, "b")
    a.lead.step()
    a.clock.now += SECONDS  # a laptop's lid
    assert not a.lead.leads
    with pytest.raises(LeaseLost):
        _ = a.lead.token
    a.lead.step()  # nobody has taken it meanwhile, but what it had begun may count as given up
    assert not a.lead.leads
    b.lead.step()
    b.clock.now += SECONDS
    b.lead.step()
    assert b.lead.leads


def test_a_database_that_is_away_costs_the_lease_in_time() -> None:
    store = Away()
    a = Process(store, "a")
    a.lead.step()
    store.away = True
    with pytest.raises(RegistryUnavailable):
        a.lead.step()
    assert a.lead.leads
    a.clock.now += SECONDS
    assert not a.lead.leads
    store.away = False
    for _ in range(2):  # loses it; sees it; takes it when it has run out
        a.lead.step()
        a.clock.now += SECONDS
    a.lead.step()
    assert a.lead.token == 2


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["step", "give up"]), st.floats(0, 9)), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_two_never_lead_at_once_whatever_pauses_there_are(steps: list[tuple[int, str, float]]) -> None:
    """Law: at any time at most one process believes that it leads, and only the last token is believed in. Clocks of the
    three processes differ, but run alike."""
    store = MemoryControlStore()
    processes = [Process(store, str(i), Clock(1000.0 * i)) for i in range(3)]
    for which, act, passes in steps:
        if act == "step":
            processes[which].lead.step()
        else:
            processes[which].lead.give_up()
        for process in processes:
            process.clock.now += passes
        leading = [process for process in processes if process.lead.leads]
        assert len(leading) <= 1
        for process in leading:
            lease = store.lease()
            assert lease is not None
            assert process.lead.token == lease.token


def test_the_machines_clock_goes_forward() -> None:
    before = machine_clock()
    assert machine_clock() >= before
