"""A log in memory, and a reference to compare it with."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.core.settings import MonitoringSettings
from fairway.monitoring.watch.frame import Frame, frame_of
from fairway.monitoring.watch.look import Asked
from fairway.monitoring.watch.monitor import Subjected, Version
from fairway.monitoring.watch.reference import Reference, make_reference
from fairway.packaging.profile import Profile

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
CONTRACT = Contract(
    inputs=(
        Field(name="amount", dtype=DType.float64, minimum=0.0, maximum=1e9),
        Field(name="country", dtype=DType.string, nullable=True),
    ),
    outputs=(
        Output(name="label", dtype=DType.int64),
        Output(name="probabilities", dtype=DType.float32, shape=(2,), labels=("0", "1")),
    ),
    task=Task.classification,
)
PROFILE = Profile(rows=2000, inputs=(), outputs=())


def log_table(
    rows: int,
    *,
    seed: int = 0,
    start: datetime = NOON,
    seconds: float = 3600.0,
    shift: float = 0.0,
    honest: bool = True,
    label: str | None = None,
) -> pa.Table:
    """`rows` predictions spread over `seconds`: fraud is likelier the larger the amount. `honest` says that probabilities
    mean what they say. With `label` ("json" or "number") the truth stands beside them."""
    random = np.random.default_rng(seed)
    amount = random.lognormal(3 + shift, 1, rows)
    p = 1 / (1 + np.exp(-(np.log(amount) - 4)))
    truth = (random.random(rows) < (p if honest else 1 - p)).astype(int)
    times = [start + timedelta(seconds=seconds * i / max(rows, 1)) for i in range(rows)]
    both = np.stack([1 - p, p], axis=1).astype(np.float32)
    columns = {
        "time": pa.array(times, pa.timestamp("us", "UTC")),
        "request_id": pa.array([f"{seed}.{i}" for i in range(rows)], pa.string()),
        "row": pa.array(np.zeros(rows, np.int32)),
        "seconds": pa.array(np.full(rows, 0.002, np.float32)),
        "arm": pa.array(["v1"] * rows, pa.string()),
        "source": pa.array(["live"] * rows, pa.string()),
        "protocol": pa.array(["v2"] * rows, pa.string()),
        "violations": pa.nulls(rows, pa.string()),
        "input.amount": pa.array(amount),
        "input.country": pa.array(random.choice(["DE", "FR", "PL"], rows), pa.string()),
        "output.label": pa.array((p > 0.5).astype(np.int64)),
        "output.probabilities": pa.FixedSizeListArray.from_arrays(pa.array(both.reshape(-1)), 2),
    }
    if label is not None:
        columns["label"] = (
            pa.array([str(t) for t in truth], pa.string()) if label == "json" else pa.array(truth)
        )
    return pa.table(columns)


def wide(contract: Contract = CONTRACT) -> Frame:
    """Rows that carry no values: all of them were too wide."""
    table = log_table(3000, seed=99)
    return frame_of(
        table.select([n for n in table.column_names if n.partition(".")[0] not in ("input", "output")]),
        contract,
    )


def reference(rows: int = 3000, *, labelled: bool = True) -> Reference:
    table = log_table(rows, seed=99, label="number" if labelled else None)
    return make_reference(CONTRACT, PROFILE, frame_of(table, CONTRACT), text="some rows")


def subjected(settings: MonitoringSettings | None = None) -> Subjected:
    return Subjected(CONTRACT, reference(), Asked(monitoring=settings or MonitoringSettings()))


class MemoryRows:
    """Predictions of one version; labels are those of a table that has them."""

    def __init__(self, *tables: pa.Table, model: str = "m") -> None:
        self.table = pa.concat_tables(
            [table.drop_columns(["label"]) if "label" in table.column_names else table for table in tables]
        )
        self.known = pa.concat_tables(
            [t for t in tables if "label" in t.column_names]
            or [self.table.append_column("label", pa.nulls(self.table.num_rows, pa.string())).slice(0, 0)]
        )
        self.model = model
        self.changes: list[tuple[datetime, int]] = []
        self.asked = 0

    def versions(self) -> Sequence[Version]:
        self.asked += 1
        if self.table.num_rows == 0:
            return []
        times = self.table["time"].to_pylist()
        return [Version(model=self.model, version=1, digest="sha256:1", first=min(times), last=max(times))]

    def rows(self, version: Version, start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
        yield from between(self.table, start, end).to_batches(max_chunksize=700)

    def changed_labels(self, model: str, since: int) -> tuple[list[datetime], timedelta, int]:
        found = [start for start, sequence in self.changes if sequence > since]
        return found, timedelta(hours=1), max([since, *(sequence for _, sequence in self.changes)])

    def labelled(self, version: Version, start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
        """Those of hours that a change has told of."""
        for hour in sorted({hour for hour, _ in self.changes}):
            begin, finish = max(start, hour), min(end, hour + timedelta(hours=1))
            if begin < finish:
                yield from between(self.known, begin, finish).to_batches()


def between(table: pa.Table, start: datetime, end: datetime) -> pa.Table:
    times = np.asarray(table["time"].cast(pa.int64()))
    low, high = (round(moment.timestamp() * 1e6) for moment in (start, end))
    return table.filter(pa.array((times >= low) & (times < high)))
