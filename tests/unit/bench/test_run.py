"""Client processes started, connected, begun together and added up."""

from typing import Any

import pytest

from fairway.bench.plan import Payload, Plan, Target
from fairway.bench.recording import OK
from fairway.bench.run import run
from fairway.core.errors import Unavailable
from tests.unit.bench.conftest import Stub


def plan_for(port: int, **changes: Any) -> Plan:
    target = Target(protocol="http", host="127.0.0.1", port=port, path="/")
    payload = Payload(bodies=[b"{}"], content_type="application/json", rows=None, source="test")
    return Plan(
        **{"target": target, "payload": payload, "seconds": 0.5, "warmup": 0.1, "connections": 3, **changes}
    )


def test_processes_share_the_rate_and_the_connections(stub: Stub) -> None:
    plan = plan_for(stub.port, rate=60.0, processes=2)
    assert [plan.lanes_of(share) for share in (0, 1)] == [2, 1]
    stages: list[tuple[str, float]] = []
    tally = run(plan, lambda stage, fraction: stages.append((stage, fraction)))
    assert tally.outcomes == {OK: 30}
    assert len(stub.posted) == 36
    assert stages[0][0] == "warming up"
    assert stages[-1] == ("waiting for the last answers", 1.0)
    assert all(0 <= fraction <= 1 for _, fraction in stages)
    assert tally.busiest > 0


def test_a_closed_loop_over_processes(stub: Stub) -> None:
    tally = run(plan_for(stub.port, processes=2))
    assert set(tally.outcomes) == {OK}
    assert tally.outcomes[OK] <= len(stub.posted)


def test_nobody_there() -> None:
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1/ cannot be reached: Connection refused"):
        run(plan_for(1))


def test_a_client_that_dies_is_told(monkeypatch: pytest.MonkeyPatch, stub: Stub) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(Unavailable, match="ended with 1"):
        run(plan_for(stub.port))
