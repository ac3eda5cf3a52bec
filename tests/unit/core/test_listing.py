"""Many things named in one line."""

import pytest

from fairway.core.listing import listed


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "0"), (2, "0, 1"), (3, "0, 1 and 1 more"), (5002, "0, 1 and 5,000 more")],
)
def test_what_is_too_much_is_counted(count: int, text: str) -> None:
    assert listed([str(number) for number in range(count)], 2) == text
