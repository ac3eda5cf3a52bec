"""What a packaged model is made of: the manifest, how its engine is fed, its proof. Values only.

A bundle on disk is a directory:

    manifest.json       format, engine, sha256 and size of every file below; its own sha256 is the digest
    contract.json       the data contract
    engine/...          model.onnx (weights beside it when large), model.skops, model.ubj, ...
    prepare/...         the user's preparation code, if any
    golden.json         rows with their answers, re-checked at every load
    profile.json        reference profile: what the training data looked like
    reference.parquet   rows with answers and labels that monitors compare traffic with; not of every bundle
    environment.json    Python and package versions the engine was proved with
    proof.json          the parity report
    card.md             the model card
    timings.json        speed measured while packaging; not part of the digest, because it never repeats
"""

from __future__ import annotations

import msgspec

FORMAT = 1
UNSEALED = frozenset({"manifest.json", "timings.json"})


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    size: int


class Feed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One input of the engine: which contract fields go in, as what.

    `fields` are stacked along axis 1 into `[n, len(fields)]` (`[n, 1]` for one scalar field with
    `column=True`, `[n]` with `column=False`, `[n, ...]` for a tensor field). `dtype` is the numpy name
    the engine wants ("float32", "int64", "object" for strings). `null` replaces a null string.
    """

    name: str
    fields: tuple[str, ...]
    dtype: str
    column: bool = True
    null: str = ""


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How to load and call the model.

    `kind` is "onnx", "native:sklearn", "native:xgboost", "native:lightgbm", "native:catboost",
    "native:python", "isolated:python" or "pipeline"; `file` is relative to the bundle. `feeds` and `outputs` (contract
    output name -> the engine's own) matter to engines that need them. `trusted` lists the type names a skops file may build.
    `prepare` is "prepare/file.py:function", run on a pandas DataFrame of the validated columns first;
    `prepared_fields` are then the columns the engine sees.
    """

    kind: str
    file: str
    feeds: tuple[Feed, ...] = ()
    outputs: dict[str, str] = {}
    trusted: tuple[str, ...] = ()
    options: dict[str, str] = {}
    prepare: str | None = None
    prepared_fields: tuple[str, ...] = ()


class Attempt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One conversion that was tried: `strategy` is float32, float64, rounded-thresholds, exact-sums or native."""

    strategy: str
    accepted: bool
    reason: str
    rows: int = 0
    label_flips: int = 0
    max_abs_diff: float = 0.0
    mean_abs_diff: float = 0.0


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Served model against the original on `rows` rows: sample, threshold-edge, null and unseen-category rows.

    `max_abs_diff` and `mean_abs_diff` are over every numeric output element. `reason` says, in one
    sentence, why this engine was chosen. `attempts` are in the order tried.
    """

    engine: str
    rows: int
    label_flips: int
    max_abs_diff: float
    mean_abs_diff: float
    tolerance: float
    reason: str
    rows_by_kind: dict[str, int] = {}
    attempts: tuple[Attempt, ...] = ()


class Timings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds per call, median, original against served: one row, and `batch_rows` rows."""

    original_row_seconds: float
    served_row_seconds: float
    batch_rows: int
    original_batch_seconds: float
    served_batch_seconds: float


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`packages` are exact versions by distribution name; `required` are the ones the engine depends on."""

    python: str
    platform: str
    packages: dict[str, str]
    required: tuple[str, ...] = ()


class GoldenRows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A few rows in wire form (lists per field, null for none) and the answers they must keep giving.

    `tolerance` is absolute + relative for floats; labels, integers and strings must be equal.
    """

    inputs: dict[str, list[object]]
    outputs: dict[str, list[object]]
    tolerance: float = 1e-5


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`format` is checked before anything else is read, so unknown keys of a newer format do not matter."""

    format: int
    engine: EngineSpec
    files: dict[str, File]
    made_with: str
