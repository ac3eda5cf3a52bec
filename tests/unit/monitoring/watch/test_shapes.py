"""What is drawn of a column."""

import pyarrow as pa

from fairway.monitoring.drift.values import Kind
from fairway.monitoring.watch.shapes import shape_of


def test_booleans_are_words_whatever_holds_them() -> None:
    """One that may be null is a number in the log."""
    plain = pa.chunked_array([pa.array([True, False, False, None])])
    nullable = pa.chunked_array([pa.array([1.0, 0.0, 0.0, float("nan")])])
    for reference, current in ((plain, nullable), (nullable, plain), (nullable, nullable)):
        shape = shape_of(reference, current, Kind.boolean)
        assert shape is not None
        assert shape.labels == ("false", "true")
        assert shape.reference == shape.current == (0.66667, 0.33333)
        assert shape.missing == (0.25, 0.25)
