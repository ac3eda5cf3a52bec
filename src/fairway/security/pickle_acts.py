"""The questions the allow-list asks about a call's arguments and about a state. Each answers yes or no.

They accept what Python's and the libraries' own picklers write, and nothing wider: an argument that is called,
a size that would reserve memory, a pair of dicts that would go through setattr are all no.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fairway.security import dtypes
from fairway.security.lightgbm_text import check_lightgbm
from fairway.security.pickle_values import Global, Group, Mapping, Object, is_plain

Arguments = Callable[[tuple[Any, ...]], bool]
State = Callable[[Object, Any], bool]

# ---- arguments -------------------------------------------------------------------------------------------


def nothing(arguments: tuple[Any, ...]) -> bool:
    return arguments == ()


def plain(arguments: tuple[Any, ...]) -> bool:
    return is_plain(arguments)


def numbers(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) <= 4 and all(isinstance(a, (int, float, str, type(None))) for a in arguments)


def collection(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) <= 1 and all(isinstance(a, (list, tuple, Mapping, Group)) for a in arguments)


def some_bytes(arguments: tuple[Any, ...]) -> bool:
    """bytes or text to turn into bytes; never a size, which would reserve that much memory."""
    if len(arguments) == 2:
        return all(isinstance(a, str) for a in arguments) and arguments[1] in ("latin1", "latin-1", "latin_1")
    return len(arguments) <= 1 and all(isinstance(a, (bytes, bytearray)) for a in arguments)


def integers(arguments: tuple[Any, ...]) -> bool:
    return all(isinstance(a, int) or a is None for a in arguments)


def slice_parts(arguments: tuple[Any, ...]) -> bool:
    return 1 <= len(arguments) <= 3 and all(isinstance(a, (int, str, Object, type(None))) for a in arguments)


def factory(arguments: tuple[Any, ...]) -> bool:
    """`defaultdict(list)` and the like: an empty built-in container or number."""
    kinds = (
        "builtins.list",
        "builtins.dict",
        "builtins.set",
        "builtins.int",
        "builtins.float",
        "builtins.str",
    )
    return not arguments or (
        len(arguments) == 1
        and (arguments[0] is None or is_named(arguments[0], *kinds, "collections.OrderedDict"))
    )


def is_named(value: Any, *names: str) -> bool:
    return isinstance(value, Global) and value.dotted in names


def made_by(value: Any, *names: str) -> bool:
    return isinstance(value, Object) and value.maker.dotted in names


def dtype_of(value: Any) -> np.dtype[Any] | None:
    """The dtype a stand-in for `numpy.dtype(...)` describes, if it was understood."""
    return value.value if isinstance(value, Object) and isinstance(value.value, np.dtype) else None


def _flat(value: Any) -> bool:
    dtype = dtype_of(value)
    return dtype is not None and not dtype.hasobject


def dtype_parts(arguments: tuple[Any, ...]) -> bool:
    return dtypes.described(arguments) is not None


def empty_array(arguments: tuple[Any, ...]) -> bool:
    """`_reconstruct(ndarray, (0,), b"b")`: an empty array that the state then fills."""
    return (
        len(arguments) == 3
        and is_named(arguments[0], "numpy.ndarray", "numpy.matrix")
        and arguments[1] == (0,)
        and arguments[2] in (b"b", "b")
    )


def array_buffer(arguments: tuple[Any, ...]) -> bool:
    """`_frombuffer(bytes, dtype, shape, order)`."""
    return (
        len(arguments) in (4, 5)
        and isinstance(arguments[0], (bytes, bytearray))
        and _flat(arguments[1])
        and is_plain(arguments[2:])
    )


def array_scalar(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) == 2 and _flat(arguments[0]) and isinstance(arguments[1], (bytes, str))


def empty_masked_array(arguments: tuple[Any, ...]) -> bool:
    return (
        len(arguments) == 4
        and is_named(arguments[0], "numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray")
        and is_named(arguments[1], "numpy.ndarray")
        and arguments[2] == (0,)
        and arguments[3] in (b"b", "b")
    )


BIT_GENERATORS = {
    "MT19937": "numpy.random._mt19937.MT19937",
    "PCG64": "numpy.random._pcg64.PCG64",
    "PCG64DXSM": "numpy.random._pcg64.PCG64DXSM",
    "Philox": "numpy.random._philox.Philox",
    "SFC64": "numpy.random._sfc64.SFC64",
}


def _is_bit_generator(value: Any) -> bool:
    if isinstance(value, str):
        return value in BIT_GENERATORS
    return is_named(value, *BIT_GENERATORS.values()) or made_by(value, *BIT_GENERATORS.values())


def bit_generator(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) == 1 and _is_bit_generator(arguments[0])


def random_generator(arguments: tuple[Any, ...]) -> bool:
    """The second argument is called with the first, so it may only be numpy's own constructor."""
    return (
        1 <= len(arguments) <= 2
        and _is_bit_generator(arguments[0])
        and (len(arguments) == 1 or is_named(arguments[1], "numpy.random._pickle.__bit_generator_ctor"))
    )


def own_class(*names: str) -> Arguments:
    """The first argument is one of these classes; the rest is data."""

    def check(arguments: tuple[Any, ...]) -> bool:
        return bool(arguments) and is_named(arguments[0], *names) and not holds_names(arguments[1:])

    return check


def holds_names(values: tuple[Any, ...]) -> bool:
    return any(isinstance(value, Global) for value in values)


# ---- states ----------------------------------------------------------------------------------------------


def attributes(_: Object, state: Any) -> bool:
    """A dict of attributes. The other form, a pair of dicts, could replace `__class__` through setattr."""
    return isinstance(state, Mapping) and not state.others


def lightgbm_state(made: Object, state: Any) -> bool:
    """A booster's attributes, its trees among them as text that LightGBM itself reads without looking."""
    if not attributes(made, state):
        return False
    for key in ("_handle", "handle"):
        text = state.named.get(key)
        if text is not None:
            if not isinstance(text, str):
                return False
            check_lightgbm(text, "the pickled LightGBM booster")
    return True


def any_tuple(_: Object, state: Any) -> bool:
    return isinstance(state, tuple)


_ARRAYS = ("numpy.ndarray", "numpy._core.numeric._frombuffer", "joblib.numpy_pickle.NumpyArrayWrapper")
"""What an array is made by: in protocols up to 4, in protocol 5, and by joblib."""


def spline_state(made: Object, state: Any) -> bool:
    """Attributes until SciPy 1.17; later the spline that it hands all to, and an empty array that tells whose arrays they are."""
    return attributes(made, state) or (
        isinstance(state, tuple)
        and len(state) == 2
        and made_by(state[0], "scipy.interpolate._bsplines._BSpline")
        and made_by(state[1], *_ARRAYS)
    )


def attributes_or_tuple(made: Object, state: Any) -> bool:
    return attributes(made, state) or (isinstance(state, tuple) and not holds_names(state))


def dtype_state(made: Object, state: Any) -> bool:
    if not isinstance(made.value, np.dtype):
        return False
    made.value = dtypes.with_state(made.value, state)
    return made.value is not None


def array_state(made: Object, state: Any) -> bool:
    """(version, shape, dtype, is Fortran, items as bytes, or as a list for objects)."""
    if not isinstance(state, tuple) or len(state) != 5 or not is_plain(state[:2]):
        return False
    return _items_match(state[1], state[2], state[4])


def masked_array_state(made: Object, state: Any) -> bool:
    """(version, shape, dtype, is Fortran, items, mask, fill value)."""
    if not isinstance(state, tuple) or len(state) != 7 or not is_plain(state[:2]):
        return False
    return _items_match(state[1], state[2], state[4]) and isinstance(state[5], bytes)


def _items_match(shape: Any, described: Any, items: Any) -> bool:
    dtype = dtype_of(described)
    if dtype is None or not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        return False
    count = math.prod(shape)
    if dtype.hasobject:
        return isinstance(items, list) and len(items) == count
    return isinstance(items, bytes) and len(items) == count * dtype.itemsize
