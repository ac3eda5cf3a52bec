"""Fairway: the safe channel from a trained model to production.

    import fairway

    d = fairway.deploy(model, data=df, target="is_fraud", name="payments")   # package + register + route
    d.version, d.digest, d.engine                # 1, "sha256:...", "onnx"
    d.proof.rows, d.proof.label_flips, d.proof.max_abs_diff   # the served model against the original

    payments = fairway.load("payments")          # also "payments@champion", "payments:3"
    payments.predict(df)                         # {"label": array [n], "probabilities": array [n, classes]}

    fairway.run_batch("payments", "in/*.parquet", "scored/", keep=("id",))      # all rows of files or tables

    fairway.drift("past.parquet", "now.parquet").drifted      # has the data changed?

    fairway.estimate("past.parquet", "now.parquet", proba="score", target="repaid")   # performance before labels

`package` makes a bundle without registering it. Errors are in `fairway.core.errors`; every one derives from
`FairwayError`. The command line does the same: `fairway --help`.

A server starts from this package in well under a second, so the names below are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fairway.core.errors import ContractViolation, FairwayError, InvalidInput
from fairway.core.release import VERSION

if TYPE_CHECKING:
    from fairway.app.batch import run_batch
    from fairway.app.drift import drift
    from fairway.app.estimate import estimate
    from fairway.app.library import Deployment, deploy, package
    from fairway.app.load import load
    from fairway.inference.loaded import LoadedModel

__version__ = VERSION
__all__ = [
    "ContractViolation",
    "Deployment",
    "FairwayError",
    "InvalidInput",
    "LoadedModel",
    "__version__",
    "deploy",
    "drift",
    "estimate",
    "load",
    "package",
    "run_batch",
]

_WHERE = {
    "Deployment": "fairway.app.library",
    "LoadedModel": "fairway.inference.loaded",
    "deploy": "fairway.app.library",
    "drift": "fairway.app.drift",
    "estimate": "fairway.app.estimate",
    "load": "fairway.app.load",
    "package": "fairway.app.library",
    "run_batch": "fairway.app.batch",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fairway' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
