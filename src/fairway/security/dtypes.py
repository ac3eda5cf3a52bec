"""Works out the numpy dtype a pickle describes, from its parts, and refuses any that numpy would not have written.

A pickled dtype carries its own flags; one that says "no Python objects inside" about an object dtype makes
numpy read raw bytes as pointers. So the state must equal, field by field, what numpy writes for that dtype.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from fairway.security.pickle_values import Mapping, Object

_CODE = re.compile(r"[<>|=]?(?:[biufc]\d{1,2}|[?OMm]|O8|[Mm]8|[SUV]\d{1,6}|b1)")
_UNIT = re.compile(rb"(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as|generic)")
_MAX_FIELDS = 1000


def described(arguments: tuple[Any, ...]) -> np.dtype[Any] | None:
    """The dtype of `numpy.dtype(*arguments)`, or None when the arguments are not what a pickle holds."""
    if len(arguments) != 3 or arguments[1:] != (
        0,
        1,
    ):  # not aligned, a copy: else the state changes a shared dtype
        return None
    code = arguments[0]
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return None
    try:
        return np.dtype(code)
    except TypeError:
        return None


def with_state(dtype: np.dtype[Any], state: Any) -> np.dtype[Any] | None:
    """The dtype after its `__setstate__(state)`, or None when numpy would not have written that state."""
    if not isinstance(state, tuple) or len(state) not in (8, 9):
        return None
    order, subarray, names, fields = state[1:5]
    if not isinstance(order, str) or order not in ("<", ">", "|", "=") or subarray is not None:
        return None
    made: np.dtype[Any] | None
    if names is None and fields is None:
        made = _dated(dtype, state[8]) if len(state) == 9 else dtype
        if made is not None and order in "<>":
            made = made.newbyteorder(order)  # type: ignore[arg-type]  # numpy's stub wants literals
        return made if made is not None and _same(made, state) else None
    for aligned in (False, True):
        made = _structured(names, fields, state[5], aligned)
        if made is not None and _same(made, state):
            # the state changes the dtype in place, below arrays that may hold it already: never its size
            return made if dtype.kind == "V" and dtype.itemsize == made.itemsize else None
    return None


def _dated(dtype: np.dtype[Any], metadata: Any) -> np.dtype[Any] | None:
    if dtype.kind not in "mM" or not isinstance(metadata, tuple) or len(metadata) != 2:
        return None
    unit = metadata[1]
    if not isinstance(unit, tuple) or len(unit) != 4 or not isinstance(unit[0], bytes):
        return None
    if not _UNIT.fullmatch(unit[0]) or not all(isinstance(part, int) for part in unit[1:]):
        return None
    if unit[0] == b"generic":
        return np.dtype(f"{dtype.kind}8")
    return np.dtype(f"{dtype.kind}8[{unit[1]}{unit[0].decode()}]")


def _structured(names: Any, fields: Any, itemsize: Any, aligned: bool) -> np.dtype[Any] | None:
    if not isinstance(names, tuple) or not isinstance(fields, Mapping) or not isinstance(itemsize, int):
        return None
    if not all(isinstance(name, str) for name in names) or set(names) != set(fields.named) or fields.others:
        return None
    if len(names) > _MAX_FIELDS or not 0 <= itemsize < 2**31:
        return None
    formats, offsets = [], []
    for name in names:
        entry = fields.named[name]
        if not isinstance(entry, tuple) or len(entry) != 2 or not isinstance(entry[1], int):
            return None
        inner = entry[0].value if isinstance(entry[0], Object) else None
        if not isinstance(inner, np.dtype) or inner.hasobject or entry[1] < 0:
            return None  # an object beside other fields could be overlapped by them
        formats.append(inner)
        offsets.append(entry[1])
    try:
        layout = {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": itemsize}
        return np.dtype(layout, align=aligned)  # type: ignore[call-overload,no-any-return]
    except (TypeError, ValueError):
        return None


def _same(dtype: np.dtype[Any], state: tuple[Any, ...]) -> bool:
    """Whether numpy itself would have written `state`; the parts already looked at are left out."""
    written: tuple[Any, ...] = dtype.__reduce__()[2]  # type: ignore[assignment]
    return len(written) == len(state) and written[:2] == state[:2] and written[5:8] == state[5:8]
