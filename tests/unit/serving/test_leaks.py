"""Nothing of a request stays behind: what the garbage collector does not look at is taken apart by hand."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from fairway.core.columns import Columns, Outputs
from fairway.core.route import everything_to
from fairway.inference.live import LiveModel
from tests.planes import live_version, plane
from tests.unit.serving.conftest import Serve


class Watched(np.ndarray[Any, Any]):
    """An output that can be watched: it lives as long as something of its request does."""


class Engine:
    def __init__(self) -> None:
        self.seen: list[weakref.ref[Any]] = []

    def predict(self, columns: Columns) -> Outputs:
        total = (columns["a"] + columns["b"]).view(Watched)
        self.seen.append(weakref.ref(total))
        self.seen.append(
            weakref.ref(columns.packed.base if columns.packed.base is not None else columns.packed)
        )  # type: ignore[union-attr]
        return {"sum": total, "both": np.stack([columns["a"], columns["b"]], axis=1)}

    def unload(self) -> None:
        """Nothing to let go."""


@pytest.mark.parametrize("inline_seconds", [10.0, -1.0])
def test_requests_are_let_go(serve: Serve, inline_seconds: float) -> None:
    engine = Engine()
    model = LiveModel(everything_to("m", 1), {1: live_version(1, engine)}, {})
    port = serve(plane(model, inline_seconds=inline_seconds))
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}
    for _ in range(20):
        assert port.infer(body)[0] == 200
    port.ask("GET", "/v2/health/live")
    gc.collect()
    assert len([seen for seen in engine.seen if seen() is not None]) <= 4  # of the last one
