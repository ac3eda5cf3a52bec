"""What readiness tells, and what it leaves out."""

from datetime import UTC, datetime

from fairway.inference.repository import (
    Health,
    LogHealth,
    ModelHealth,
    RegistryHealth,
    RegistryState,
    State,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEALTH = Health(
    ready=True,
    registry=RegistryHealth(state=RegistryState.away, since=NOW, reason="db.internal is away"),
    models={name: ModelHealth(state=State.failed, version=1, reason="golden row 3") for name in ("a", "b")},
    log=LogHealth(recording=False, since=NOW, reason="/srv/log is full"),
)


def test_reasons_are_left_out_wherever_they_stand() -> None:
    told = HEALTH.without_reasons()
    assert told.registry is not None
    assert told.registry.state is RegistryState.away
    assert told.log is not None
    assert not told.log.recording
    assert {told.registry.reason, told.log.reason, *(m.reason for m in told.models.values())} == {""}
    assert Health(ready=True).without_reasons() == Health(ready=True)


def test_only_some_models() -> None:
    assert HEALTH.of_models({"a", "c"}).models.keys() == {"a"}
    assert HEALTH.of_models(()).models == {}
