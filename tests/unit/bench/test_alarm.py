"""The alarm rings, in order, never before its moment; with a timer of the system and without."""

import asyncio

import pytest

from fairway.bench import alarm as module
from fairway.bench.alarm import Alarm, clock


@pytest.fixture(params=["system", "portable"])
def portable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "portable":
        monkeypatch.setattr(module, "_timerfd", lambda: None)
    return bool(request.param == "portable")


async def _rings(moments: list[float]) -> list[tuple[float, float]]:
    """Moments asked for, with those at which it rang."""
    loop = asyncio.get_running_loop()
    rang: list[tuple[float, float]] = []
    done = loop.create_future()
    begin = clock()

    def ring() -> None:
        rang.append((begin + moments[len(rang)], clock()))
        if len(rang) == len(moments):
            done.set_result(None)
        else:
            alarm.set(begin + moments[len(rang)])

    alarm = Alarm(loop, ring)
    alarm.set(begin + moments[0])
    await asyncio.wait_for(done, 20)
    alarm.close()
    return rang


@pytest.mark.usefixtures("portable")
def test_it_never_rings_early() -> None:
    rang = asyncio.run(_rings([-1.0, 0.0, 0.0003, 0.0006, 0.01, 0.0101, 0.05]))
    assert len(rang) == 7
    assert all(at >= wanted - 1e-9 for wanted, at in rang)


@pytest.mark.usefixtures("portable")
def test_a_new_moment_replaces_the_old() -> None:
    async def scene() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        rang: list[float] = []
        alarm = Alarm(loop, lambda: rang.append(clock()))
        begin = clock()
        alarm.set(begin + 0.02)
        alarm.set(begin + 0.06)
        await asyncio.sleep(0.2)
        alarm.close()
        return len(rang), rang[0] - begin

    count, after = asyncio.run(scene())
    assert count == 1
    assert after >= 0.06


@pytest.mark.usefixtures("portable")
def test_a_closed_one_stays_silent() -> None:
    async def scene() -> list[float]:
        rang: list[float] = []
        alarm = Alarm(asyncio.get_running_loop(), lambda: rang.append(clock()))
        alarm.set(clock() + 0.01)
        alarm.close()
        await asyncio.sleep(0.03)
        return rang

    assert asyncio.run(scene()) == []
