import numpy as np
import pytest

from fairway.core.columns import Columns


def test_a_matrix_is_also_its_columns() -> None:
    packed = np.arange(6.0).reshape(3, 2)
    columns = Columns(("a", "b"), 3, packed=packed)
    assert dict(columns)["b"].tolist() == [1, 3, 5]
    assert np.shares_memory(columns["a"], packed)
    assert (len(columns), list(columns), columns.rows) == (2, ["a", "b"], 3)


def test_columns_by_name() -> None:
    columns = Columns(("a", "b"), 2, arrays=[np.array([1, 2]), np.array(["x", None], dtype=object)])
    assert columns["b"].tolist() == ["x", None]
    assert columns.packed is None
    with pytest.raises(KeyError, match="c"):
        columns["c"]


def test_either_arrays_or_a_matrix() -> None:
    for given in ({}, {"arrays": [], "packed": np.zeros((0, 0))}):
        with pytest.raises(ValueError, match="either"):
            Columns((), 0, **given)


@pytest.mark.parametrize("index", [slice(1, 3), np.array([2, 0]), np.array([True, False, True])])
def test_take_selects_the_same_rows_of_every_column(index: slice | np.ndarray) -> None:
    packed = np.arange(6.0).reshape(3, 2)
    whole = Columns(("a", "b"), 3, packed=packed).take(index)
    apart = Columns(("a", "b"), 3, arrays=list(packed.T)).take(index)
    assert whole.rows == apart.rows == 2
    for name in ("a", "b"):
        assert whole[name].tolist() == apart[name].tolist()
    assert whole["a"].tolist() == packed[index][:, 0].tolist()


def test_no_columns_is_no_rows() -> None:
    assert Columns((), 0, arrays=[]).take(slice(0, 1)).rows == 0


def test_bytes_count_matrices_and_tensors_exactly_and_other_values_roughly() -> None:
    assert Columns(("a",), 1000, packed=np.zeros((1000, 1))).bytes == 8000
    texts = np.array(["x"] * 1000, dtype=object)
    mixed = Columns(("a", "b"), 1000, arrays=[np.zeros(1000, np.int8), texts])
    assert mixed.bytes == 2 * 64_000
    images = Columns(("image",), 2, arrays=[np.zeros((2, 100, 100), np.float32)])
    assert images.bytes >= 80_000
