"""What pages read of a monitor's report is what the monitor wrote."""

from typing import Any

import msgspec
import pytest

from fairway.control.web.dashboard import seen
from fairway.monitoring.watch.values import summary_of
from fairway.stores.windows import WatchedWindow
from tests.unit.control.web.dashboard.seen_windows import report, window


def _shown(full: Any, value: Any) -> Any:
    """Of `full`, what `value` has, as far down as it goes."""
    if isinstance(value, dict):
        return {name: _shown(full[name], part) for name, part in value.items() if name in full}
    if isinstance(value, list):
        return [_shown(a, b) for a, b in zip(full, value, strict=True)]
    return full


@pytest.mark.parametrize("what", ["report", "summary"])
def test_every_field_that_is_shown_is_read_as_it_was_written(what: str) -> None:
    told = window(report())
    full = msgspec.json.decode(getattr(told, what))
    read = seen.report_in(told) if what == "report" else seen.summary_in(told)
    back = msgspec.to_builtins(read)
    assert _shown(full, back) == {name: back[name] for name in back if name in full}
    assert set(full) <= set(back), "a field of the monitor that no page knows"


def test_a_report_in_an_unknown_form_is_none() -> None:
    told = window(report())
    for content in (b"", b"{", b'{"rows": "many"}', b"\xff"):
        broken = msgspec.structs.replace(told, report=content, summary=content)
        assert seen.report_in(broken) is None
        assert seen.summary_in(broken) is None
    assert seen.report_in(None) is None
    assert isinstance(told, WatchedWindow)
    assert summary_of(report()).rows == 500


def test_columns_that_drifted_and_matter_come_first() -> None:
    found = seen.report_in(window(report(columns=6)))
    assert found is not None
    names = [column.name for column in found.ranked]
    assert names[0] == "amount"
    assert names[1:4] == ["c3", "c2", "c1"]
    assert names[-1].startswith("country")
