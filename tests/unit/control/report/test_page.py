"""The report as a file: whole, small, offline, and safe whatever names hold."""

import re
from html.parser import HTMLParser

import pytest

from fairway.control.report.drawing import draw, ticks
from fairway.control.report.gathered import Gathered, gather
from fairway.control.report.page import render
from fairway.control.web.dashboard.charts import Chart, Line, Mark
from fairway.core.clock import utc_text
from fairway.core.errors import NotFound
from fairway.stores.windows_memory import MemoryWindows
from tests.unit.control.report.windows import EVIL, FIRST, MODEL, fill, incident

MADE = utc_text(FIRST.replace(month=6))


def told(columns: int = 6, windows: int = 30, *, evil: bool = False) -> Gathered:
    store = MemoryWindows()
    fill(store, columns, windows, evil=evil)
    return gather(store, (incident(evil=evil),), MODEL, None, limit=20_000, made=MADE)


class Tags(HTMLParser):
    """Every tag with its attributes, and that all are closed."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] in {"p", "li"} and self.open[-1] != tag:
            self.open.pop()
        assert self.open.pop() == tag


def test_one_file_without_scripts_or_anything_from_elsewhere() -> None:
    text = render(told(evil=True))
    tags = Tags(text)
    assert tags.open == []
    assert {tag for tag, _ in tags.seen}.isdisjoint(
        {"script", "img", "link", "iframe", "object", "form", "base"}
    )
    for _, attributes in tags.seen:
        assert not {
            name for name in attributes if name.startswith("on") or name in ("src", "style", "action")
        }
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(a["content"] for tag, a in tags.seen if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert EVIL not in text
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in text


def test_everything_of_the_pages_is_in_it() -> None:
    text = render(told())
    assert '<th scope="row">f0 = ordinary</th>' in text
    for said in (
        "Incident opened", "ROC AUC", "feature 0", "Missing", "f0 = ordinary", "out of range", "Estimated", "Measured",
        "has moved by 0.80 standard deviations", "the rows in its bundle", "a note of ordinary",
    ):  # fmt: skip
        assert said in text, said
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'href="#([^"]+)"', text) + re.findall(r'aria-labelledby="([^"]+)"', text)
    assert set(wanted) <= set(ids)


def test_fifty_columns_and_ninety_windows_are_well_below_five_megabytes() -> None:
    text = render(told(50, 90))
    assert len(text.encode()) < 1_500_000
    assert text.count('<article class="card') == 50


def test_a_year_of_hours_is_no_larger_than_its_columns() -> None:
    assert len(render(told(2, 3000)).encode()) < 1_500_000


def test_windows_without_rows_or_reports_and_none_at_all() -> None:
    store = MemoryWindows()
    with pytest.raises(NotFound, match="no window of payments was looked at"):
        gather(store, (), MODEL, None, limit=10, made=MADE)
    fill(store, 1, 4)
    alone = gather(store, (), MODEL, 3, since=utc_text(FIRST.replace(hour=3)), until=utc_text(FIRST.replace(hour=4)), limit=10, made=MADE)  # fmt: skip
    assert "Fairway report" in render(alone)


def test_incidents_of_other_versions_and_times_are_left_out() -> None:
    store = MemoryWindows()
    fill(store, 1, 30)
    early = gather(store, (incident(),), MODEL, 3, until=utc_text(FIRST.replace(hour=5)), limit=10, made=MADE)
    assert early.incidents == ()
    assert len(told().incidents) == 1


def test_round_ticks_around_all_values() -> None:
    assert ticks([0.0, 97.0], zero=True) == [0.0, 25.0, 50.0, 75.0, 100.0]
    assert ticks([0.0, 1.0], zero=True, whole=True) == [0.0, 1.0]
    for values in ([0.881, 0.93], [5.0], [0.0], [-3.0, 8.0], [1e-9, 2e-9], [1e300, -1e300]):
        marks = ticks(values, zero=False)
        assert marks[0] <= min(values)
        assert marks[-1] >= max(values)
        assert 2 <= len(marks) <= 7


def test_gaps_single_points_intervals_and_marks_are_drawn() -> None:
    line = Line(
        label="x",
        values=(1.0, None, 2.0, 3.0),
        lower=(0.5, None, 1.5, 2.5),
        upper=(1.5, None, 2.5, 3.5),
        alert=(True, False, False, False),
    )
    chart = Chart(name=EVIL, times=(0.0, 10.0, 20.0, 30.0), lines=(line,), marks=(Mark(15.0, "incident"),))
    drawn = str(draw(chart))
    assert drawn.count("<circle") == 2  # the point on its own, and that it is outside
    assert drawn.count('<polyline class="line main"') == 1
    assert drawn.count("<polygon") == 1
    assert 'class="mark"' in drawn
    assert "<img" not in drawn
    assert draw(Chart(name="", times=(0.0,), lines=(Line(label="", values=(None,)),))) == ""
