"""Series: few enough points, no value invented, no alert lost."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.control.web.dashboard.seen import Summary
from fairway.control.web.dashboard.series import Seen, buckets, read_windows
from fairway.monitoring.watch.values import Point
from fairway.stores.windows import WindowKey
from fairway.stores.windows_memory import MemoryWindows
from tests.unit.control.web.dashboard.seen_windows import report, window


def _seen(index: int, **values: object) -> Seen:
    key = WindowKey(model="m", version=1, digest="d", start=str(index))
    summary = msgspec.json.decode(msgspec.json.encode({"end": "", "rows": 10, **values}), type=Summary)
    return Seen(key, float(index), float(index + 1), summary)


@given(count=st.integers(0, 2000), most=st.integers(1, 300))
def test_every_window_is_in_one_point_and_points_are_few(count: int, most: int) -> None:
    windows = [_seen(index) for index in range(count)]
    found = buckets(windows, most)
    assert len(found) <= most
    assert [window for bucket in found for window in bucket.windows] == windows


@given(values=st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=1, max_size=50))
def test_means_and_peaks_are_of_what_is_known(values: list[float | None]) -> None:
    [found] = buckets([_seen(index, p99=value) for index, value in enumerate(values)], 1)
    known = [value for value in values if value is not None]
    assert found.most(lambda s: s.p99) == max(known, default=None)
    mean = found.mean(lambda s: s.p99)
    assert (mean is None) == (not known)
    assert mean is None or math.isclose(mean, sum(known) / len(known), abs_tol=1e-9)


def test_long_points_are_of_whole_days() -> None:
    hours = [
        Seen(w.key, 3600.0 * i, 3600.0 * (i + 1), w.summary)
        for i, w in enumerate(map(_seen, range(24 * 365)))
    ]
    assert {len(bucket.windows) for bucket in buckets(hours)[:-1]} == {48}
    assert {len(bucket.windows) for bucket in buckets(hours[: 24 * 90])} == {9}


def test_an_alert_of_any_window_is_one_of_the_point() -> None:
    windows = [
        _seen(0, performance={"f1": Point(0.5, 0.4, 0.6, (0.4, 0.6))}),
        _seen(1, performance={"f1": Point(0.1, None, None, (0.2, 0.6), True)}),
        _seen(2),
    ]
    [found] = buckets(windows, 1)
    point = found.point(lambda s: s.performance.get("f1"))
    assert point == Point(pytest.approx(0.3), 0.4, 0.6, (pytest.approx(0.3), 0.6), True)
    assert found.point(lambda s: s.estimates.get("f1")) is None


def test_requests_are_told_by_the_second() -> None:
    [found] = buckets([_seen(0, requests=30), _seen(1, requests=10)], 1)
    assert found.rate == 20


def test_windows_of_a_version_that_was_replaced_are_left_out() -> None:
    store = MemoryWindows()
    old, new = report(3), report(1)
    store.put([window(old), window(new)])
    assert [w.end - w.start for w in read_windows(store, "churn", 2)] == [3600, 3600]
    store.put([window(msgspec.structs.replace(report(2), digest="sha256:other"))])
    assert len(read_windows(store, "churn", 2)) == 2
    assert read_windows(store, "nobody", None) == ()
