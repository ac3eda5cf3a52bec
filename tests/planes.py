"""A request path without bundles: real routing, validation, counting and recording around an engine of one line."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fairway.core.bundle import EngineSpec, Environment, GoldenRows, Manifest, Proof
from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.route import Arm, Route, everything_to
from fairway.core.settings import ServingSettings, Settings
from fairway.inference.live import LiveModel, LiveVersion, Table
from fairway.inference.merging import Floor
from fairway.inference.plane import Plane
from fairway.inference.predictions import Predictions
from fairway.inference.record import Recorder
from fairway.inference.repository import LogHealth
from fairway.inference.stats import VersionStats
from fairway.packaging.bundle import Bundle
from fairway.stores.counters import Counters

TWO_NUMBERS = Contract(
    inputs=(
        Field(name="a", dtype=DType.float64),
        Field(name="b", dtype=DType.float64, minimum=0.0, maximum=10.0),
    ),
    outputs=(Output(name="sum", dtype=DType.float64), Output(name="both", dtype=DType.float64, shape=(2,))),
)


class Adding:
    """sum = a + b + `shift`; both = [a, b]."""

    def __init__(self, shift: float = 0.0, before: Callable[[Columns], None] = lambda columns: None) -> None:
        self.shift = shift
        self.before = before
        self.calls = 0
        self.unloaded = False

    def predict(self, columns: Columns) -> Outputs:
        self.calls += 1
        self.before(columns)
        return {
            "sum": columns["a"] + columns["b"] + self.shift,
            "both": np.stack([columns["a"], columns["b"]], axis=1),
        }

    def unload(self) -> None:
        self.unloaded = True


def bundle(contract: Contract = TWO_NUMBERS, digest: str = "sha256:abc") -> Bundle:
    proof = Proof(
        engine="onnx", rows=0, label_flips=0, max_abs_diff=0, mean_abs_diff=0, tolerance=0, reason=""
    )
    return Bundle(
        directory=Path("nowhere"),
        digest=digest,
        manifest=Manifest(format=1, engine=EngineSpec(kind="onnx", file="m"), files={}, made_with=""),
        contract=contract,
        golden=GoldenRows(inputs={}, outputs={}),
        environment=Environment(python="", platform="", packages={}),
        proof=proof,
        timings=None,
    )


def live_version(
    number: int,
    engine: object | None = None,
    *,
    model: str = "m",
    contract: Contract = TWO_NUMBERS,
    counters: Counters | None = None,
    settings: Settings | None = None,
    floor: int | None = None,
) -> LiveVersion:
    digest = f"sha256:{number}"
    stats = VersionStats(counters or Counters(), model, number, digest)
    chosen = Adding(shift=100.0 * (number - 1)) if engine is None else engine
    return LiveVersion(
        model,
        number,
        bundle(contract, digest),
        chosen,  # type: ignore[arg-type]
        stats,
        settings or Settings(serving=ServingSettings(inline_seconds=10.0)),
        Floor(floor, "", ((1, 1e-5), (8, 1e-5), (64, 1e-5)) if floor else ()),
    )


class Kept:
    """A recorder that keeps predictions in memory."""

    def __init__(self) -> None:
        self.predictions: list[Predictions] = []
        self.commits = 0
        self.health = LogHealth(since=datetime.now(UTC))
        self.closed = False

    def record(self, prediction: Predictions) -> None:
        self.predictions.append(prediction)

    def gather(self) -> None:
        return

    def commit(self) -> None:
        self.commits += 1

    def close(self) -> None:
        self.closed = True


def plane(
    *models: LiveModel,
    recorder: Recorder | Kept | None = None,
    counters: Counters | None = None,
    settings: Settings | None = None,
    inline_seconds: float | None = None,
) -> Plane:
    """Serves `m`, version 1 with the alias champion, when no models are given. Calls run inline."""
    counters = counters or Counters()
    if not models:
        models = (LiveModel(everything_to("m", 1), {1: live_version(1, counters=counters)}, {"champion": 1}),)
    for version in (version for model in models for version in model.versions.values()):
        if inline_seconds is not None:
            version.cost._inline_seconds = inline_seconds
            version.cost.inline_rows = 2**62 if inline_seconds > 0 else 0
            if version.cost.expect(1):
                version.cost._settle()
    return Plane(Table(models), counters, recorder, settings or Settings())  # type: ignore[arg-type]


def split(model: str, *shares: float, counters: Counters | None = None, salt: str = "") -> LiveModel:
    """A model whose versions 1, 2, ... have these shares of the traffic."""
    route = Route(model=model, arms=tuple(Arm(i, share) for i, share in enumerate(shares, 1)), salt=salt)
    versions = {arm.version: live_version(arm.version, model=model, counters=counters) for arm in route.arms}
    return LiveModel(route, versions, {})
