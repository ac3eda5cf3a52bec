"""A model behind the user's own preparation: raw columns as a DataFrame, the user's function, then the engine.

Packaging, serving, batches and embedding all come through here, so preparation runs identically in each.
pandas is needed, and imported with the user's code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Columns, Outputs
from fairway.core.conform import frame_arrays, to_columns
from fairway.core.contract import Contract, Field
from fairway.core.errors import ContractViolation, CorruptBundle, ModelFailed
from fairway.runtimes.base import Engine
from fairway.runtimes.estimator import to_frame
from fairway.runtimes.python import read_function

PREPARED = "prepare/_prepared.json"
"""Where a bundle keeps `Preparation`."""

LoadInner = Callable[[Path, EngineSpec, Contract], Engine]


class Preparation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`dtypes` are the pandas dtypes of the frame the function gets (see `estimator.pandas_dtype`); `fields`
    are the columns it gives back, as the contract of what stands behind it."""

    dtypes: dict[str, str]
    fields: tuple[Field, ...]


def load(directory: Path, spec: EngineSpec, contract: Contract, load_inner: LoadInner) -> PreparedEngine:
    """The engine of a bundle whose `spec.prepare` is set; `load_inner` loads what stands behind it."""
    assert spec.prepare is not None
    try:
        preparation = msgspec.json.decode((directory / PREPARED).read_bytes(), type=Preparation)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise CorruptBundle(f"{directory / PREPARED} cannot be read: {error}.") from error
    path, _, function = spec.prepare.rpartition(":")
    inner_contract = msgspec.structs.replace(contract, inputs=preparation.fields)
    inner_spec = msgspec.structs.replace(spec, prepare=None, prepared_fields=())
    inner = load_inner(directory, inner_spec, inner_contract)
    prepare = read_function(directory / path, function)
    return PreparedEngine(prepare, preparation.dtypes, inner_contract, inner)


class PreparedEngine:
    """`inner_contract` describes the columns that `prepare` gives and `inner` takes."""

    def __init__(
        self,
        prepare: Callable[[Any], Any],
        dtypes: Mapping[str, str],
        inner_contract: Contract,
        inner: Engine,
    ) -> None:
        self._prepare = prepare
        self._dtypes = dtypes
        self._contract = inner_contract
        self._inner = inner

    def predict(self, columns: Columns) -> Outputs:
        """Raises `ModelFailed` when the preparation raises or gives other columns than it did when packaged."""
        prepared = prepared_frame(self._prepare, columns, self._dtypes)
        try:
            inner = to_columns(self._contract, frame_arrays(prepared))
        except ContractViolation as error:
            told = "; ".join(f"{problem.field}: {problem.reason}" for problem in error.problems[:5])
            raise ModelFailed(
                f"the preparation gave columns the model was not packaged with: {told}"
            ) from error
        return self._inner.predict(inner)

    def unload(self) -> None:
        self._inner.unload()


def prepared_frame(prepare: Callable[[Any], Any], columns: Columns, dtypes: Mapping[str, str]) -> Any:
    """What `prepare` makes of the columns: a DataFrame with a row for every row. Raises `ModelFailed` otherwise."""
    name = getattr(prepare, "__name__", "prepare")
    frame = to_frame(columns, columns.names, dtypes)
    try:
        prepared = prepare(frame)
    except Exception as error:
        raise ModelFailed(f"the preparation {name} raised {type(error).__name__}: {error}") from error
    if not hasattr(prepared, "columns") or not hasattr(prepared, "iloc"):
        raise ModelFailed(
            f"the preparation {name} gave a {type(prepared).__name__}; it must give a DataFrame."
        )
    if len(prepared) != columns.rows:
        raise ModelFailed(
            f"the preparation {name} gave {len(prepared)} rows for {columns.rows}; it must give one for each."
        )
    return prepared
