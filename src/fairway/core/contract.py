"""The data contract: what a model takes and gives, and what happens to a value that does not fit.

Every input is a named array with a leading row axis. A table is many scalar fields, one `[n]` array each;
a tensor is one field with a fixed shape, an `[n, ...]` array.
"""

from __future__ import annotations

import builtins
import enum
import hashlib
from collections.abc import Iterator

import msgspec


class DType(enum.StrEnum):
    """Element types. `string` covers categories and free text; `timestamp` is UTC microseconds."""

    bool = "bool"
    int8 = "int8"
    int16 = "int16"
    int32 = "int32"
    int64 = "int64"
    uint8 = "uint8"
    uint16 = "uint16"
    uint32 = "uint32"
    uint64 = "uint64"
    float16 = "float16"
    float32 = "float32"
    float64 = "float64"
    string = "string"
    timestamp = "timestamp"

    @property
    def is_integer(self) -> builtins.bool:
        return self in _INTEGERS

    @property
    def is_float(self) -> builtins.bool:
        return self in _FLOATS

    @property
    def is_numeric(self) -> builtins.bool:
        """Can stand in a numeric matrix: booleans, integers and floats."""
        return self in _INTEGERS or self in _FLOATS or self is DType.bool


_INTEGERS = frozenset(
    {DType.int8, DType.int16, DType.int32, DType.int64, DType.uint8, DType.uint16, DType.uint32, DType.uint64}
)
_FLOATS = frozenset({DType.float16, DType.float32, DType.float64})


class Action(enum.StrEnum):
    """What to do with a value that breaks a rule."""

    reject = "reject"  # refuse the request, naming field and row
    clip = "clip"  # move to the nearest allowed value (numbers and timestamps only)
    impute = "impute"  # replace by `Field.impute_with`
    warn = "warn"  # let it through unchanged and count it


class Privacy(enum.StrEnum):
    """What happens to the values of a private field before a prediction is written to the log."""

    drop = "drop"  # never written
    hash = "hash"  # replaced by a keyed hash: equal values stay equal, nobody gets them back
    token = "token"  # noqa: S105 - encrypted: who has the key gets the value back


class Rules(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One action per way a value can be wrong; applied in this order.

    `on_null`: no value (JSON null, NaN, empty CSV cell); `warn` needs a nullable field, where it lets nulls
    through. `on_infinite`: +-infinity. `on_range`: below `minimum` or above `maximum`. `on_outlier`: outside
    `fence`. `on_category`: not one of `categories`. A value of the wrong type is always rejected.
    """

    on_null: Action = Action.reject
    on_range: Action = Action.warn
    on_category: Action = Action.warn
    on_outlier: Action = Action.warn
    on_infinite: Action = Action.reject


class Category(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A category and its share of the non-null training values, 0..1."""

    value: str | int | float | bool
    frequency: float


class Field(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One named input.

    `shape` is the shape of one row's value: `()` for a scalar. `minimum`, `maximum`, `quantiles` (at
    0, .05, .25, .5, .75, .95, 1) and `fence` (low, high outlier limits) describe the training data; for
    timestamps they are microseconds since 1970-01-01 UTC. `missing_rate` is the share of nulls seen, 0..1.
    `imputed_by` says how `impute_with` came to be: constant, mean, median or mode. `private` says what the
    prediction log may hold of it; None: its values as they are.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...] = ()
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    quantiles: tuple[float, ...] = ()
    fence: tuple[float, float] | None = None
    categories: tuple[Category, ...] = ()
    missing_rate: float = 0.0
    rules: Rules = Rules()
    impute_with: str | int | float | bool | None = None
    imputed_by: str | None = None
    private: Privacy | None = None
    description: str = ""

    def __post_init__(self) -> None:
        for rule in ("on_null", "on_category"):
            if getattr(self.rules, rule) is Action.clip:
                raise ValueError(f"field {self.name!r}: {rule} cannot be clip; use reject, impute or warn")
        if self.rules.on_null is Action.warn and not self.nullable:
            raise ValueError(
                f"field {self.name!r}: on_null = warn lets nulls through, so it needs nullable = true"
            )
        imputes = any(getattr(self.rules, rule) is Action.impute for rule in Rules.__struct_fields__)
        if imputes and self.impute_with is None:
            raise ValueError(f"field {self.name!r}: a rule says impute, so impute_with is needed")
        if self.shape and (self.categories or imputes):
            raise ValueError(f"field {self.name!r}: a tensor has neither categories nor imputation")


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One named output; `shape` as in `Field`. `labels` names the last axis (the classes of `probabilities`)."""

    name: str
    dtype: DType
    shape: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()


class Task(enum.StrEnum):
    classification = "classification"  # outputs label [n], probabilities [n, classes]
    regression = "regression"  # output prediction [n] (or [n, targets])
    anomaly = "anomaly"  # outputs label [n], score [n]
    other = "other"  # the model's own outputs


class Contract(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a model takes and gives. `extra_fields`: reject or ignore inputs the contract does not know."""

    inputs: tuple[Field, ...]
    outputs: tuple[Output, ...]
    task: Task = Task.other
    extra_fields: str = "ignore"
    target: str | None = None

    def __post_init__(self) -> None:
        names = [field.name for field in self.inputs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"field names must be unique; repeated: {', '.join(twice)}")
        if self.extra_fields not in ("ignore", "reject"):
            raise ValueError(f"extra_fields must be 'ignore' or 'reject', not {self.extra_fields!r}")

    def __iter__(self) -> Iterator[Field]:
        return iter(self.inputs)

    @property
    def is_matrix(self) -> bool:
        """True when every input is a scalar number that float64 holds exactly: one packed `[n, k]` matrix."""
        return len(self.inputs) > 0 and all(_fits_matrix(field) for field in self.inputs)

    def input_signature(self) -> str:
        """Digest of what callers must send (names, dtypes, shapes). Versions behind one route share it."""
        signature = [(field.name, field.dtype.value, field.shape) for field in self.inputs]
        return hashlib.sha256(msgspec.json.encode(signature)).hexdigest()


_EXACT_IN_FLOAT64 = 2**53


def _fits_matrix(field: Field) -> bool:
    if field.shape or not field.dtype.is_numeric:
        return False
    if field.dtype in (DType.int64, DType.uint64):
        limits = (field.minimum or 0, field.maximum or 0)
        return all(abs(limit) <= _EXACT_IN_FLOAT64 for limit in limits)
    return True
