"""Rows on their way to a model: one array per contract field, all with the same number of rows.

Nulls have one form each: NaN in floats (a nullable integer or boolean column is float64), None in strings
(object arrays of `str`), NaT in timestamps (`datetime64[us]`, UTC).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Outputs = dict[str, Array]


class Columns(Mapping[str, Array]):
    """`rows` rows of named arrays, in contract order.

    When every field is a scalar number the values are also one C-ordered `[rows, fields]` matrix in
    `packed`, and the arrays are views of its columns.
    """

    __slots__ = ("_arrays", "names", "packed", "rows")

    def __init__(
        self,
        names: tuple[str, ...],
        rows: int,
        *,
        arrays: Sequence[Array] | None = None,
        packed: Array | None = None,
    ) -> None:
        if (arrays is None) == (packed is None):
            raise ValueError("give either arrays or packed")
        self.names = names
        self.rows = rows
        self.packed = packed
        self._arrays = arrays

    @property
    def arrays(self) -> Sequence[Array]:
        if self._arrays is None:
            assert self.packed is not None
            self._arrays = [self.packed[:, i] for i in range(len(self.names))]
        return self._arrays

    @property
    def bytes(self) -> int:
        """Rough size in memory: exact for matrices and tensors, 64 bytes for any other value."""
        if self.packed is not None:
            return int(self.packed.nbytes)
        tensors = sum(values.nbytes for values in self.arrays if values.ndim > 1)
        return 64 * self.rows * len(self.names) + tensors

    def __getitem__(self, name: str) -> Array:
        try:
            return self.arrays[self.names.index(name)]
        except ValueError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, index: slice | Array) -> Columns:
        """The rows that `index` selects."""
        if self.packed is not None:
            packed = self.packed[index]
            return Columns(self.names, len(packed), packed=packed)
        arrays = [array[index] for array in self.arrays]
        return Columns(self.names, len(arrays[0]) if arrays else 0, arrays=arrays)
