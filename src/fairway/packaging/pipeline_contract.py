"""What a pipeline takes: one field from all the nodes that read it, refusing what any of them refuses.

A value that passes must mean to each node what it would have meant to its model alone. So the strictest action
wins, with the limits of those that ask for it; and where one node would change a value (clip it, fill one in) that
another wants as it is, or otherwise, there is no answer, and the conflict is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from fairway.core.contract import Action, DType, Field, Output, Rules

Reader = tuple[str, Field]
"""(node, the field as that node's contract has it)."""
_LIMITS = {"on_range": ("minimum", "maximum"), "on_outlier": ("fence",), "on_category": ("categories",)}
_WHOLE = ("on_null", "on_infinite")
"""Rules that judge every value of a kind alike: what one refuses, nobody gets."""
_NUMBERS = [
    *(DType.bool, DType.int8, DType.uint8, DType.int16, DType.uint16, DType.int32, DType.uint32),
    *(DType.int64, DType.uint64, DType.float16, DType.float32, DType.float64),
]


def merged(name: str, readers: Sequence[Reader]) -> tuple[Field | None, list[str]]:
    """(the field that suits every reader, None) or what they disagree about. `readers` are one or more."""
    (_, first), *others = readers
    field = msgspec.structs.replace(first, name=name)
    if not others:
        return field, []
    conflicts: list[str] = []
    dtype = _dtype([reader.dtype for _, reader in readers])
    if dtype is None:
        conflicts.append(f"is {_each(readers, 'dtype')}")
    if len({reader.shape for _, reader in readers}) > 1:
        conflicts.append(f"has the shapes {_each(readers, 'shape')}")
    changes: dict[str, Any] = {
        "dtype": dtype,
        "nullable": all(reader.nullable for _, reader in readers),
        "missing_rate": max(reader.missing_rate for _, reader in readers),
    }
    actions: dict[str, Action] = {}
    for rule in Rules.__struct_fields__:
        strict, problem = _strictest(rule, readers)
        conflicts += problem
        filler = strict[0][1]
        actions[rule] = getattr(filler.rules, rule)
        if actions[rule] is Action.impute:
            changes |= {"impute_with": filler.impute_with, "imputed_by": filler.imputed_by}
        for limit in _LIMITS.get(rule, ()):
            changes[limit] = _narrowest(limit, [getattr(reader, limit) for _, reader in strict])
    conflicts += _emptied(changes, readers)
    if conflicts:
        return None, conflicts
    if actions["on_null"] is Action.warn and not changes["nullable"]:
        actions["on_null"] = Action.reject
    return msgspec.structs.replace(field, rules=Rules(**actions), **changes), []


def _dtype(dtypes: list[DType]) -> DType | None:
    """The dtype whose values every one of these takes; None when there is none.

    Whole numbers are numbers to a model of floats, so the integers win; of two floats the wider, since its model
    would see another value after rounding, and the narrower rounds what it gets in any case.
    """
    if len(set(dtypes)) == 1:
        return dtypes[0]
    integers = [dtype for dtype in dtypes if dtype.is_integer]
    if not all(dtype.is_integer or dtype.is_float for dtype in dtypes):
        return None
    if len({dtype.value.startswith("u") for dtype in integers}) > 1:
        return None
    return min(integers, key=_NUMBERS.index) if integers else max(dtypes, key=_NUMBERS.index)


def _strictest(rule: str, readers: Sequence[Reader]) -> tuple[list[Reader], list[str]]:
    """The readers whose action holds, and what stands against it. A rule without limits asks for nothing."""
    bound = [reader for reader in readers if _has_limits(rule, reader[1])] or readers
    asked = {action: [r for r in bound if getattr(r[1].rules, rule) is action] for action in Action}
    if asked[Action.reject] and rule in _WHOLE:
        return asked[Action.reject], []
    changing = asked[Action.clip] + asked[Action.impute]
    if changing and len({_change(rule, reader) for _, reader in readers}) > 1:
        told = ", ".join(f"{node} {_change_told(rule, reader)}" for node, reader in readers)
        return changing, [f"{rule}: {told}"]
    return next(found for found in (asked[Action.reject], changing, asked[Action.warn]) if found), []


def _change(rule: str, field: Field) -> tuple[Any, ...]:
    """All that decides what a rule makes of a value."""
    limits = ("minimum", "maximum") if rule == "on_infinite" else _LIMITS.get(rule, ())
    fill = repr(field.impute_with) if getattr(field.rules, rule) is Action.impute else None
    return (getattr(field.rules, rule), field.dtype, fill, *(getattr(field, limit) for limit in limits))


def _change_told(rule: str, field: Field) -> str:
    if not _has_limits(rule, field):
        return "takes all"
    action: Action = getattr(field.rules, rule)
    fill = f" {field.impute_with!r}" if action is Action.impute else ""
    limits = [f"{limit} {_shown(getattr(field, limit))}" for limit in _LIMITS.get(rule, ())[:2]]
    return f"{action.value}s{fill}{f' ({chr(32).join(limits)})' if limits and rule != 'on_category' else ''}"


def _has_limits(rule: str, field: Field) -> bool:
    limits = _LIMITS.get(rule)
    return limits is None or any(getattr(field, limit) not in (None, ()) for limit in limits)


def _narrowest(limit: str, values: list[Any]) -> Any:
    """What all of these allow; a limit that is not there allows everything."""
    given = [value for value in values if value not in (None, ())]
    if not given:
        return values[0]
    if limit == "minimum":
        return max(given)
    if limit == "maximum":
        return min(given)
    if limit == "fence":
        return max(low for low, _ in given), min(high for _, high in given)
    common = set.intersection(*({category.value for category in categories} for categories in given))
    return tuple(category for category in given[0] if category.value in common)


def _emptied(changes: dict[str, Any], readers: Sequence[Reader]) -> Iterator[str]:
    """Limits that leave no value at all."""
    low, high = changes.get("minimum"), changes.get("maximum")
    if low is not None and high is not None and low > high:
        yield f"has ranges that do not meet ({_each(readers, 'minimum')}; {_each(readers, 'maximum')})"
    fence = changes.get("fence")
    if fence is not None and fence[0] > fence[1]:
        yield f"has outlier fences that do not meet ({_each(readers, 'fence')})"
    if not changes["categories"] and any(reader.categories for _, reader in readers):
        yield "has categories that have nothing in common"


def _each(readers: Sequence[Reader], attribute: str) -> str:
    return ", ".join(f"{node}: {_shown(getattr(reader, attribute))}" for node, reader in readers)


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def misfit(given: Output | Field, wanted: Field) -> str | None:
    """Why values of `given` cannot be `wanted`'s; None when they can. A wider float may become a narrower one."""
    if given.shape != wanted.shape:
        return f"shape {[*given.shape]} does not fit {[*wanted.shape]}"
    if not _becomes(given.dtype, wanted.dtype):
        return f"{given.dtype} does not fit {wanted.dtype}"
    if isinstance(given, Field) and given.nullable and not wanted.nullable:
        return "it may be null, and the field takes none"
    return None


def _becomes(given: DType, wanted: DType) -> bool:
    if given is wanted or (given.is_float and wanted.is_float):
        return True
    if not (given.is_numeric and wanted.is_numeric) or given.is_float or wanted is DType.bool:
        return False
    if wanted.is_float or given is DType.bool:
        return True
    signs = given.value.startswith("u"), wanted.value.startswith("u")
    wider = int(wanted.value.lstrip("uint")) - int(given.value.lstrip("uint"))
    return wider >= 0 if signs[0] == signs[1] else signs[0] and wider > 0
