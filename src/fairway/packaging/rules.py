"""Rules of a contract: which are sound, which the training data asks for, and what imputation fills in."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from fairway.core.contract import Action, Contract, DType, Field, Rules
from fairway.core.errors import InvalidInput, Problem
from fairway.packaging.profile import FieldProfile, Profile

RULES = ("on_null", "on_infinite", "on_range", "on_outlier", "on_category")
Imputed = str | int | float | bool
IMPUTATIONS = ("constant", "mean", "median", "mode")


class Refusals(msgspec.Struct, frozen=True, kw_only=True):
    """Names of fields in which the original model refuses to work with a null, or with a category it has not seen."""

    nulls: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()


def default_rules(profile: FieldProfile, *, refuses_null: bool, refuses_unseen: bool) -> Rules:
    """Rules under which nothing is refused that the training data held, unless the model itself refuses it."""
    seen_null = profile.nulls > 0
    return Rules(
        on_null=Action.warn if seen_null and not refuses_null else Action.reject,
        on_category=Action.reject if refuses_unseen else Action.warn,
        on_infinite=Action.warn if profile.infinite else Action.reject,
    )


def contract_problems(contract: Contract) -> tuple[Problem, ...]:
    """What in a contract contradicts itself beyond what `Field` itself refuses; each problem names the field."""
    return tuple(Problem(reason, field.name) for field in contract for reason in _field_problems(field))


def check_contract(contract: Contract) -> Contract:
    """`contract` unchanged, or InvalidInput with every contradiction in it."""
    problems = contract_problems(contract)
    if problems:
        told = "; ".join(f"{problem.field}: {problem.reason}" for problem in problems)
        raise InvalidInput(f"The contract contradicts itself: {told}.", problems)
    return contract


def _field_problems(field: Field) -> Iterator[str]:
    rules = field.rules
    numeric = field.dtype.is_numeric or field.dtype is DType.timestamp
    if any(size < 1 for size in field.shape):
        yield f"shape {list(field.shape)} must hold whole numbers from 1"
    if field.shape and not field.dtype.is_numeric:
        yield f"a tensor holds numbers, not {field.dtype}"
    if not 0 <= field.missing_rate <= 1:
        yield f"missing_rate must be from 0 to 1, not {field.missing_rate}"
    if field.minimum is not None and field.maximum is not None and field.minimum > field.maximum:
        yield f"minimum {field.minimum} is above maximum {field.maximum}"
    if field.fence is not None and field.fence[0] > field.fence[1]:
        yield f"fence {list(field.fence)} has its lower limit above its upper"
    if not numeric and (field.minimum is not None or field.maximum is not None or field.fence is not None):
        yield f"minimum, maximum and fence are for numbers and timestamps, not {field.dtype}"
    yield from _category_problems(field)
    if Action.clip in (rules.on_range, rules.on_infinite) and field.minimum is None and field.maximum is None:
        yield "clip needs a minimum or a maximum"
    if rules.on_infinite is Action.clip and None in (field.minimum, field.maximum):
        yield "on_infinite = clip needs both minimum and maximum"
    if rules.on_outlier is Action.clip and field.fence is None:
        yield "on_outlier = clip needs a fence"
    yield from _imputation_problems(field)


def _category_problems(field: Field) -> Iterator[str]:
    values = [category.value for category in field.categories]
    wrong = next((value for value in values if not _is_of(field.dtype, value)), None)
    if wrong is not None:
        yield f"category {wrong!r} is not of type {field.dtype}"
    if len(set(values)) < len(values):
        yield "a category stands twice"
    if any(not 0 <= category.frequency <= 1 for category in field.categories):
        yield "category frequencies must be from 0 to 1"


def _imputation_problems(field: Field) -> Iterator[str]:
    if field.imputed_by is not None and field.imputed_by not in IMPUTATIONS:
        yield f"imputed_by must be one of {', '.join(IMPUTATIONS)}, not {field.imputed_by!r}"
    if field.imputed_by in ("mean", "median") and not _has_mean(field.dtype):
        yield f"{field.imputed_by} is for numbers and timestamps, not {field.dtype}"
    if field.impute_with is not None and not _is_of(field.dtype, field.impute_with):
        yield f"impute_with {field.impute_with!r} is not of type {field.dtype}"


def _has_mean(dtype: DType) -> bool:
    return dtype.is_integer or dtype.is_float or dtype is DType.timestamp


def _is_of(dtype: DType, value: object) -> bool:
    if dtype is DType.string:
        return isinstance(value, str)
    if dtype is DType.bool:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if dtype is DType.timestamp:
        return isinstance(value, int | str)
    return isinstance(value, int) or (isinstance(value, float) and (dtype.is_float or value.is_integer()))


def imputation(name: str, dtype: DType, how: str | None, profile: Profile | None) -> tuple[str, Imputed]:
    """(how, value) that imputation fills in for a field, from what the training data looked like.

    With `how` None, numbers and timestamps take the median, all else the mode. InvalidInput when the data
    cannot tell: a field that was always null, a mean of text, no profile.
    """
    how = how or ("median" if _has_mean(dtype) else "mode")
    field = None if profile is None else profile.field(name)
    value = None if field is None else _statistic(dtype, how, field)
    if value is None:
        raise InvalidInput(
            f"the {how} of field {name!r} is not known, so nothing can be imputed.",
            (Problem(f"has no {how} to impute", name),),
            hint="Give a constant: impute_with.",
        )
    return how, value


def _statistic(dtype: DType, how: str, profile: FieldProfile) -> Imputed | None:
    if how == "mode":
        return profile.mode
    if not _has_mean(dtype) or not profile.quantiles:
        return None
    value = profile.mean if how == "mean" else profile.quantiles[50]
    return value if value is None or dtype.is_float else round(value)


def set_rule(contract: Contract, change: str, profile: Profile | None) -> Contract:
    """`contract` with one rule changed, from text such as `amount.on_null=impute:median`.

    The actions are reject, warn, clip, impute (the field's usual value), impute:mean, impute:median,
    impute:mode and impute:VALUE. Raises InvalidInput for text that is none of these and for a rule that the
    field cannot have.
    """
    place, equals, action_text = change.partition("=")
    name, _, rule = place.rpartition(".")
    field = next((field for field in contract if field.name == name), None)
    if not equals or field is None or rule not in RULES:
        raise InvalidInput(
            f"{change!r} is not a change of a rule.",
            hint=f"Write FIELD.RULE=ACTION with a field of the contract and a rule of {', '.join(RULES)}.",
        )
    verb, colon, value = action_text.partition(":")
    if verb not in Action.__members__ or (colon and verb != Action.impute):
        raise InvalidInput(
            f"{action_text!r} in {change!r} is not an action.",
            hint="Actions are reject, warn, clip, impute, impute:mean, impute:median, impute:mode, impute:VALUE.",
        )
    updates: dict[str, object] = {"rules": msgspec.structs.replace(field.rules, **{rule: Action(verb)})}
    if rule == "on_null" and verb == Action.warn:
        updates["nullable"] = True
    if colon and value not in IMPUTATIONS[1:]:
        updates |= {"imputed_by": "constant", "impute_with": _constant(field, value)}
    elif verb == Action.impute:
        how, fill = imputation(field.name, field.dtype, value or None, profile)
        updates |= {"imputed_by": how, "impute_with": fill}
    try:
        changed = msgspec.structs.replace(field, **updates)
    except ValueError as error:
        raise InvalidInput(f"{change!r} is not possible: {error}.") from error
    inputs = tuple(changed if other is field else other for other in contract)
    return check_contract(msgspec.structs.replace(contract, inputs=inputs))


def _constant(field: Field, text: str) -> Imputed:
    if field.dtype in (DType.string, DType.timestamp):
        return text
    try:
        kind = bool if field.dtype is DType.bool else float if field.dtype.is_float else int
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        raise InvalidInput(
            f"{text!r} is not of type {field.dtype}, the type of field {field.name!r}."
        ) from None
