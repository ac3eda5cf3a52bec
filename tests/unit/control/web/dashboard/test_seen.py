"""What pages read is what the monitor wrote."""

import math
import subprocess
import sys

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fairway.control.web.dashboard import seen
from fairway.monitoring.told import Measured
from fairway.monitoring.watch.kept import encoded
from fairway.monitoring.watch.values import Point, Summary, summary_of
from fairway.stores.windows import WatchedWindow
from tests.unit.control.web.dashboard.seen_windows import report, window


def test_a_summary_is_read_as_it_was_written() -> None:
    full = summary_of(report())
    read = seen.summary_in(window(report()))
    assert read is not None
    assert set(seen.Summary.__struct_encode_fields__) <= set(Summary.__struct_fields__)
    for name in set(seen.Summary.__struct_encode_fields__) - {"effects"}:
        assert getattr(read, name) == getattr(full, name), name
    assert msgspec.json.decode(read.effects) == full.effects
    assert full.alerts == sum(metric.alert for metric in (*report().estimates, *report().performance))


def test_metrics_are_read_only_once_they_are_asked_for() -> None:
    read = seen.summary_in(WatchedWindow(
        key=window(report()).key, end="2026-11-21T12:00:00.000000Z", rows=1,
        summary=b'{"end": "2026-11-21T12:00:00.000000Z", "rows": 1, "performance": {"f1": 3}, "estimates": {"f1": {"value": 0.5}}}',
    ))  # fmt: skip
    assert read is not None
    assert read.rows == 1
    assert read.performance == {}  # in a form that is not known
    assert read.estimates == {"f1": Point(0.5)}


def test_what_has_an_unknown_form_is_none() -> None:
    told = window(report())
    for content in (b"", b"{", b'{"rows": "many"}', b"\xff"):
        broken = msgspec.structs.replace(told, report=content, summary=content)
        assert seen.report_in(broken) is None
        assert seen.summary_in(broken) is None
    assert seen.report_in(None) is None
    assert seen.report_in(told) == report()


@given(
    effects=st.dictionaries(st.text(max_size=8), st.floats(0, 10), max_size=8),
    asked=st.lists(st.text(max_size=8), unique=True),
)
def test_effects_of_columns_of_any_name(effects: dict[str, float], asked: list[str]) -> None:
    summary = seen.Summary(end="", rows=1, effects=msgspec.Raw(msgspec.json.encode(effects)))
    columns = [*effects, *(name for name in asked if name not in effects)]
    found = seen.effects_reader(columns)(summary)
    assert all(
        a == effects.get(name) or math.isclose(a or 0, effects[name])
        for a, name in zip(found, columns, strict=True)
    )


def test_effects_that_cannot_be_read_are_not_known() -> None:
    summary = seen.Summary(end="", rows=1, effects=msgspec.Raw(b'{"a": "much"}'))
    assert seen.effects_reader(["a", "b"])(summary) == (None, None)


def test_columns_that_drifted_and_matter_come_first() -> None:
    names = [column.name for column in seen.ranked(report(columns=6))]
    assert names[0] == "amount"
    assert names[1:4] == ["c3", "c2", "c1"]
    assert names[-1].startswith("country")


def test_pages_bring_no_statistics() -> None:
    """The control process does without 150 MB."""
    code = "import sys, fairway.control.web.app; print({'numpy', 'scipy', 'pyarrow', 'pandas'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_metric_that_cannot_be_said_is_read_as_it_was_written() -> None:
    unknown = Measured(name="demographic_parity_difference", value=None, note="fewer than two groups")
    told = report()
    fairness = {
        "country": msgspec.structs.replace(told.fairness["country"], measures={unknown.name: unknown})
    }
    told = msgspec.structs.replace(told, fairness=fairness)
    assert seen.report_in(msgspec.structs.replace(window(told), report=encoded(told))) == told
