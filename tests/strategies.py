"""Hypothesis strategies: fields with rules, and values to send them, good and bad."""

from typing import Any

from hypothesis import strategies as st

from fairway.core.contract import Action, Category, Contract, DType, Field, Rules

NUMBERS = [d for d in DType if d.is_numeric]
LETTERS = ["a", "b", "c", "d", "e", "f"]


@st.composite
def rules(draw: st.DrawFn, *, nullable: bool, category: bool) -> Rules:
    numbers = [Action.reject, Action.warn, Action.clip, Action.impute]
    others = [Action.reject, Action.warn, Action.impute]
    return Rules(
        on_null=draw(st.sampled_from(others if nullable else [Action.reject, Action.impute])),
        on_range=draw(st.sampled_from(others if category else numbers)),
        on_outlier=draw(st.sampled_from(others if category else numbers)),
        on_infinite=draw(st.sampled_from(others)),
        on_category=draw(st.sampled_from(others)),
    )


@st.composite
def fields(draw: st.DrawFn, name: str, dtypes: list[DType] | None = None) -> Field:
    """A scalar field whose limits, categories and rules stand in each other's way as they may."""
    dtype = draw(st.sampled_from(dtypes or list(DType)))
    nullable = draw(st.booleans())
    options: dict[str, Any] = {
        "impute_with": {"string": "a", "bool": True, "timestamp": "2020-01-01T00:00:00Z"}.get(dtype, 1)
    }
    category = dtype in (DType.string, DType.bool) or (dtype.is_integer and draw(st.booleans()))
    if category and draw(st.booleans()):
        known: list[Any] = {"string": LETTERS[:3], "bool": [True]}.get(dtype, [1, 2, 3])
        options["categories"] = tuple(Category(value, 1 / len(known)) for value in known)
    elif dtype is DType.timestamp and draw(st.booleans()):
        options |= {"minimum": 0.0, "maximum": 2e15, "fence": (1e12, 1.5e15)}
    elif dtype.is_numeric and dtype is not DType.bool:
        low, high = sorted(draw(st.tuples(limit(dtype), limit(dtype))))
        if draw(st.booleans()):
            options |= {"minimum": low, "maximum": high}
        if draw(st.booleans()):
            options["fence"] = tuple(sorted(draw(st.tuples(limit(dtype), limit(dtype)))))
    return Field(
        name=name,
        dtype=dtype,
        nullable=nullable,
        missing_rate=draw(st.sampled_from([0.0, 0.1])) if nullable else 0.0,
        rules=draw(
            rules(nullable=nullable, category="categories" in options or dtype in (DType.bool, DType.string))
        ),
        **options,
    )


def limit(dtype: DType) -> st.SearchStrategy[float]:
    if dtype.is_integer:
        return st.integers(0 if dtype.value.startswith("u") else -20, 20).map(float)
    return st.sampled_from([-3.0, -0.1, 0.0, 0.1, 0.3, 1.0, 2.5, 10.0])


@st.composite
def contracts(draw: st.DrawFn, dtypes: list[DType] | None = None, most: int = 4) -> Contract:
    drawn = draw(
        st.integers(1, most).flatmap(lambda n: st.tuples(*(fields(f"f{i}", dtypes) for i in range(n))))
    )
    return Contract(inputs=drawn, outputs=(), extra_fields=draw(st.sampled_from(["ignore", "reject"])))


def json_value(field: Field) -> st.SearchStrategy[Any]:
    """Values as JSON gives them: mostly of the field's type, near its limits; now and then wrong."""
    right: st.SearchStrategy[Any]
    if field.dtype is DType.string:
        right = st.sampled_from(LETTERS)
    elif field.dtype is DType.bool:
        right = st.booleans()
    elif field.dtype is DType.timestamp:
        right = st.sampled_from(
            [
                "2020-01-01",
                "1969-12-31T23:59:59.999999Z",
                "2040-05-05T05:05:05+02:00",
                "2001-09-09T01:46:40.000001Z",
                " 2020-01-01 ",
            ]
        )
    elif field.dtype.is_integer:
        right = st.integers(-25, 25) | st.sampled_from([1.0, 2.5, 127, 128, 300, 2**31, 2**53, 2**53 + 1, -1])
    else:
        right = st.floats(-12, 12, width=16) | st.sampled_from(
            [0.1, 0.3, 1, 2.5, 70000, 1e39, -3, 0.10000000149011612, -0.0]
        )
    wrong = st.sampled_from([None, None, "x", True, 1, [], {}, "2020-13-01", 10**30])
    return st.one_of(right, right, right, right, right, right, wrong)
