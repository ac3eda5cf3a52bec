"""A model behind the user's preparation gets exactly the columns it was packaged with, or says why not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import CorruptBundle, ModelFailed
from fairway.runtimes.base import load
from fairway.runtimes.prepared import PREPARED, Preparation, PreparedEngine

RAW = Contract(
    inputs=(
        Field(name="t", dtype=DType.timestamp, nullable=True),
        Field(name="n", dtype=DType.int64, nullable=True),
    ),
    outputs=(),
)
INNER = Contract(
    inputs=(Field(name="hour", dtype=DType.int64), Field(name="n", dtype=DType.float64)), outputs=()
)
DTYPES = {"t": "datetime64[us]", "n": "Int64"}


class Echo:
    unloaded = False

    def predict(self, columns: Columns) -> Outputs:
        return {name: columns[name] for name in columns}

    def unload(self) -> None:
        self.unloaded = True


def rows(*moments: str) -> Columns:
    numbers = np.arange(len(moments), dtype=np.float64)
    return Columns(("t", "n"), len(moments), arrays=[np.array(moments, dtype="datetime64[us]"), numbers])


def prepare(frame: pd.DataFrame) -> pd.DataFrame:
    assert str(frame["n"].dtype) == "Int64"
    return pd.DataFrame({"hour": frame["t"].dt.hour, "n": frame["n"].astype("float64") * 2, "unused": "x"})


def test_the_inner_engine_sees_the_prepared_columns() -> None:
    inner = Echo()
    engine = PreparedEngine(prepare, DTYPES, INNER, inner)
    answers = engine.predict(rows("2024-01-01T05:00", "2024-01-01T23:59"))
    assert answers["hour"].tolist() == [5, 23]
    assert answers["n"].tolist() == [0.0, 2.0]
    engine.unload()
    assert inner.unloaded


def test_columns_it_was_not_packaged_with_are_named() -> None:
    engine = PreparedEngine(prepare, DTYPES, INNER, Echo())
    with pytest.raises(ModelFailed, match="hour: null"):
        engine.predict(rows("NaT"))
    other = PreparedEngine(lambda frame: frame[["n"]], DTYPES, INNER, Echo())
    with pytest.raises(ModelFailed, match="hour: missing"):
        other.predict(rows("2024-01-01"))


def test_is_loaded_from_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "prepare").mkdir()
    (tmp_path / "engine/model.py").write_text("def predict(frame): return frame['hour'] + frame['n']\n")
    (tmp_path / "prepare/clean.py").write_text(
        "def clean(frame): return frame.assign(hour=frame['t'].dt.hour, n=frame['n'].astype('float64'))\n"
    )
    preparation = Preparation(dtypes=DTYPES, fields=INNER.inputs)
    (tmp_path / PREPARED).write_bytes(msgspec.json.encode(preparation))
    spec = EngineSpec(
        kind="native:python",
        file="engine/model.py",
        options={"function": "predict"},
        prepare="prepare/clean.py:clean",
        prepared_fields=("hour", "n"),
    )
    engine = load(tmp_path, spec, RAW)
    assert engine.predict(rows("2024-01-01T05:00", "2024-01-01T07:00"))["prediction"].tolist() == [5.0, 8.0]
    (tmp_path / PREPARED).write_bytes(b"{}")
    with pytest.raises(CorruptBundle, match=r"_prepared\.json"):
        load(tmp_path, spec, RAW)
