"""The monitor's process works as long as its control process leads."""

import os
from collections.abc import Iterator

import pytest

from fairway.app.watch import Lead


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass  # the test has closed it


def test_it_is_over_when_the_lease_is_not_renewed(pipe: tuple[int, int]) -> None:
    now = 100.0
    lead = Lead(pipe[0], lambda: now)
    os.write(pipe[1], b"108.0\n")
    assert not lead.is_over()
    now = 107.0
    os.write(pipe[1], b"115.0\n11")
    now = 109.0
    assert not lead.is_over()
    os.write(pipe[1], b"7.5\n")
    now = 117.0
    assert not lead.is_over()
    now = 117.5
    assert lead.is_over()


def test_what_was_said_while_nobody_listened_counts(pipe: tuple[int, int]) -> None:
    now = 500.0
    lead = Lead(pipe[0], lambda: now)
    os.write(pipe[1], b"".join(b"%d\n" % until for until in range(108, 509)))
    assert not lead.is_over()


def test_it_is_over_when_the_control_process_is_gone_or_leads_no_more(pipe: tuple[int, int]) -> None:
    lead = Lead(pipe[0])
    os.write(pipe[1], b"0.0\n")
    assert lead.is_over(60)
    os.close(pipe[1])
    assert Lead(pipe[0]).is_over(60)
