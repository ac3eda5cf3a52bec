"""The join, step by step, is the join from scratch: whatever arrives in whatever order, however often."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.core.errors import Unavailable
from fairway.core.label import ANY_MODEL, Label
from fairway.core.settings import LogSettings
from fairway.stores.label_join import WINDOW_SECONDS, LabelJoin
from fairway.stores.log_compaction import compact
from tests.logs import (
    DAY,
    NOON,
    label,
    opened,
    prediction_batch,
    seconds,
    segment_log,
    write_labels,
    write_predictions,
)

T = seconds(NOON)
Prediction = tuple[str, float, str | None]
"""Request id, time, key."""
Told = tuple[Label, float]
"""A label and when it came."""
Pairs = dict[tuple[str, int], tuple[Any, int]]
"""By request id and prediction time in microseconds: the label and its time."""


def from_scratch(predictions: Sequence[Prediction], labels: Sequence[Told]) -> Pairs:
    """What the join should be, by its definition."""
    best: dict[tuple[str, int], tuple[int, int, str, Any]] = {}
    made = {(name, round(time * 1e6), key) for name, time, key in predictions}
    for one, received in labels:
        if one.request_id:
            meant = [p for p in made if p[0] == one.request_id and one.row == 0]
            chosen = max(meant, key=lambda p: p[1], default=None)
        else:
            meant = [p for p in made if p[2] == one.key and p[1] <= one.time]
            chosen = max(meant, key=lambda p: (p[1], p[0]), default=None)
        if chosen is None:
            continue
        text = one.value.decode()
        rank = (one.time, round(received * 1e6), text, msgspec.json.decode(text))
        place = (chosen[0], chosen[1])
        if place not in best or rank[:3] > best[place][:3]:
            best[place] = rank
    return {place: (rank[3], rank[0]) for place, rank in best.items()}


def label_values(column: pa.Array) -> list[object]:
    """Labels are JSON."""
    return [msgspec.json.decode(text) for text in column.to_pylist()]


def read(join: LabelJoin, start: datetime | None = None, end: datetime | None = None) -> Pairs:
    start = start or datetime(2000, 1, 1, tzinfo=UTC)
    end = end or datetime(2100, 1, 1, tzinfo=UTC)
    found: Pairs = {}
    for batch in join.joined(start, end):
        times = batch.column("time").cast("int64").to_pylist()
        label_times = batch.column("label_time").cast("int64").to_pylist()
        values = label_values(batch.column("label"))
        for name, at, value, when in zip(
            batch.column("request_id").to_pylist(), times, values, label_times, strict=True
        ):
            assert (name, at) not in found
            found[name, at] = (value, when)
    return found


NAMES = st.sampled_from(["a", "b", "c", "d"])
TIMES = st.integers(0, 12).map(lambda i: T + i * 1800.0)
PREDICTIONS = st.tuples(NAMES, TIMES, st.sampled_from([None, "k1", "k2"]))
LABELS = st.builds(
    lambda name, key, value, time, received: (
        label("" if key else name, value, time, key=key), received,
    ),
    NAMES, st.sampled_from(["", "", "k1", "k2"]), st.integers(0, 3), TIMES, TIMES,
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("predict"), st.lists(PREDICTIONS, min_size=1, max_size=4, unique_by=lambda p: p[:2])
        ),
        st.tuples(st.just("label"), st.lists(LABELS, min_size=1, max_size=4)),
        st.tuples(st.just("again"), st.just([])),
        st.tuples(st.just("compact"), st.just([])),
    ),
    min_size=2,
    max_size=8,
)


class Killed(BaseException):
    pass


def step_killed(join: LabelJoin, kills: Iterator[int], look: Callable[[], None]) -> None:
    """Steps until one ends that is not killed; each is at one of the moments when something has been kept. Somebody looks
    at each of them."""
    real = LabelJoin._keep
    while True:
        left = [next(kills, 99)]

        def keep(self: LabelJoin, state: Any, left: list[int] = left) -> None:
            real(self, state)
            look()
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            patch.setattr(LabelJoin, "_keep", keep)
            join.step()
            return


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(STEPS, st.lists(st.integers(0, 5), max_size=8))
def test_step_by_step_is_from_scratch(steps: list[tuple[str, list[Any]]], kills: list[int]) -> None:
    """After every step, killed on the way or not, the join is what it would be from scratch, and who reads only windows
    that are said to have changed has the same."""
    kill = iter(kills)
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as small:
        small.setattr("fairway.stores.label_join._LABELS_AT_ONCE", 1)
        small.setattr("fairway.stores.label_join._PREDICTIONS_AT_ONCE", 1)
        folder = Path(root) / "log"
        log = opened(folder)
        join = LabelJoin(log, "m", clock=lambda: T)
        predictions: list[Prediction] = []
        labels: list[Told] = []
        view: Pairs = {}
        watermark = 0

        def look() -> None:
            nonlocal view, watermark
            changed, watermark = join.changed(watermark)
            for start in changed:
                end = start + timedelta(seconds=WINDOW_SECONDS)
                low, high = round(start.timestamp() * 1e6), round(end.timestamp() * 1e6)
                view = {place: value for place, value in view.items() if not low <= place[1] < high}
                view |= read(join, start, end)

        for kind, what in steps:
            if kind == "predict":
                fresh = [
                    p for p in what if p[:2] not in {q[:2] for q in predictions}
                ]  # a retry has a time of its own
                if not fresh:
                    continue
                write_predictions(folder, [(n, t) for n, t, _ in fresh], keys=[k for _, _, k in fresh])
                predictions += fresh
            elif kind == "label":
                for one, received in what:
                    write_labels(folder, [one], received)
                labels += what
            elif kind == "again" and labels:
                write_labels(folder, [labels[-1][0]], labels[-1][1])
            elif kind == "compact":
                compact(log, LogSettings(), everything=True, clock=lambda: T)
            step_killed(join, kill, look)
            look()
            expected = from_scratch(predictions, labels)
            assert view == expected
        assert read(join) == from_scratch(predictions, labels)
        shutil.rmtree(folder / "m" / "join.db", ignore_errors=True)
        for path in folder.glob("m/join.db*"):
            path.unlink()
        anew = LabelJoin(log, "m", clock=lambda: T)
        anew.step()
        assert read(anew) == from_scratch(predictions, labels)


def test_an_open_segment_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    join = LabelJoin(opened(folder), "m", clock=lambda: T)
    writing = segment_log(folder)
    write_labels(folder, [label("r2", 1, T)], T)
    for i in range(4):
        writing.append(prediction_batch([(f"r{i}", T)]))
        assert join.step().matched == (i >= 2)
    assert read(join) == {("r2", round(T * 1e6)): (1, round(T * 1e6))}
    writing.close()


def test_late_corrected_and_unknown_labels(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = opened(folder)
    join = LabelJoin(log, "m", clock=lambda: T + DAY)
    write_predictions(folder, [("r1", T), ("r2", T)])
    assert join.step() == join.standing()
    compact(log, LogSettings(), everything=True, clock=lambda: T + DAY)
    write_labels(folder, [label("r1", "late", T + 1), label("nobody", 1, T)], T + DAY)
    done = join.step()
    assert (done.labels, done.matched, done.unknown) == (2, 1, 1)
    write_labels(folder, [label("r1", "corrected", T + 5)], T + DAY)
    write_labels(folder, [label("r1", "older", T + 2)], T + 2 * DAY)
    join.step()
    assert read(join) == {("r1", round(T * 1e6)): ("corrected", round((T + 5) * 1e6))}
    history = sorted(
        v for b in log.labels("m") for v in label_values(b.column("label")) if isinstance(v, str)
    )
    assert history == ["corrected", "late", "older"]


def test_nothing_new_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    join = LabelJoin(opened(folder), "m", clock=lambda: T)
    assert join.changed() == ([], 0)
    write_predictions(folder, [("r1", T)])
    write_labels(folder, [label("r1", 1, T)], T)
    join.step()
    windows, watermark = join.changed()
    assert windows == [datetime.fromtimestamp(T // 3600 * 3600, UTC)]
    write_labels(folder, [label("r1", 1, T)], T)  # a duplicate
    compact(opened(folder), LogSettings(), everything=True, clock=lambda: T)
    join.step()
    assert join.changed(watermark) == ([], watermark)


def test_unknown_labels_expire_and_others_go_with_their_predictions(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    now = [T]
    join = LabelJoin(opened(folder), "m", label_days=10, keep_days=20, clock=lambda: now[0])
    write_predictions(folder, [("r1", T)])
    write_labels(folder, [label("r1", 1, T), label("nobody", 1, T), label("", 1, T, key="nobody")], T)
    assert join.step().unknown == 2
    now[0] += 11 * DAY
    join.step()  # a clock that has jumped is believed when it has gone on for an hour
    now[0] += 3601
    assert join.step().expired == 2
    assert join.standing().labels == 1
    now[0] += 11 * DAY
    join.step()
    now[0] += 3601
    assert join.step().labels == 0


def test_a_clock_that_is_ahead_for_a_moment_loses_no_label(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    now = [T]
    join = LabelJoin(opened(folder), "m", clock=lambda: now[0])
    write_predictions(folder, [("r1", T)])
    write_labels(folder, [label("r1", 1, T), label("later", 2, T)], T)
    assert join.step().labels == 2
    now[0] = T + 365 * DAY
    assert join.step().labels == 2
    now[0] = T + 60
    write_predictions(folder, [("later", T + 60)])
    assert join.step().matched == 2


def test_a_label_that_names_no_model_belongs_to_who_predicted(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, [("r1", T)])
    write_predictions(folder, [("r2", T)], model="other")
    write_labels(folder, [label("r1", 1, T, model=ANY_MODEL), label("r2", 2, T, model=ANY_MODEL)], T)
    found = {}
    for model in ("m", "other"):
        join = LabelJoin(opened(folder), model, clock=lambda: T)
        join.step()
        found[model] = {name: value for (name, _), (value, _) in read(join).items()}
    assert found == {"m": {"r1": 1}, "other": {"r2": 2}}


def test_columns_and_large_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "log"
    rows = [(f"r{i}", T + i * 60) for i in range(50)]
    write_predictions(folder, rows)
    write_labels(folder, [label(name, i, T) for i, (name, _) in enumerate(rows)], T)
    join = LabelJoin(opened(folder), "m", clock=lambda: T)
    join.step()
    monkeypatch.setattr("fairway.stores.label_join._PAIRS_AT_ONCE", 7)
    batches = list(join.joined(NOON, NOON + timedelta(days=1), columns=["output.label", "version"]))
    assert batches[0].schema.names == ["output.label", "version", "label", "label_time", "label_received"]
    assert sorted(v for b in batches for v in label_values(b.column("label"))) == list(range(50))


def test_forgotten_labels_leave_the_state(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    join = LabelJoin(opened(folder), "m", clock=lambda: T)
    write_predictions(folder, [("r1", T)], keys=["ann-somebody"])
    write_labels(folder, [label("r1", "told-of-r1", T), label("", "told-of-ann", T, key="ann-somebody")], T)
    join.step()
    join.forget(["r1"], ["ann-somebody"])
    assert join.standing().labels == 0


def test_a_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    (folder / "m").mkdir(parents=True)
    (folder / "m" / "join.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(Unavailable, match="delete it"):
        LabelJoin(opened(folder), "m").step()


def test_who_looks_while_a_step_goes_on_sees_every_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.stores.label_join._LABELS_AT_ONCE", 1)
    folder = tmp_path / "log"
    join = LabelJoin(opened(folder), "m", clock=lambda: T)
    write_predictions(folder, [("a", T), ("b", T + 7200)])
    for name in "ab":
        write_labels(folder, [label(name, 1, T)], T)
    seen: list[datetime] = []
    real, watermark = LabelJoin._keep, 0

    def keep(self: LabelJoin, state: Any) -> None:
        nonlocal watermark
        real(self, state)
        changed, watermark = join.changed(watermark)
        seen.extend(changed)

    monkeypatch.setattr(LabelJoin, "_keep", keep)
    join.step()
    assert sorted(seen) == [NOON, NOON + timedelta(hours=2)]
