"""A prediction request and its answer, as every protocol hands them to the request path."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence

import msgspec

from fairway.core.columns import Outputs
from fairway.core.conform import Values

Inputs = Mapping[str, Values]
"""Values by field name: arrays, or lists of Python values as JSON gives them. A numeric table may also be
one `[n, fields]` matrix under any other single name."""

BATCH = "batch"
"""Who answered, and by which protocol, where a run scored rows of files or tables: nobody waited for them."""


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`version` is a number or an alias as text, None for live traffic. `key` decides the arm of a split;
    without one, `request_id` does. `wanted` names the outputs to return, None for all. `deadline` is on the clock
    of `time.perf_counter`, seconds. `caller` is the name of the API key, empty when none was asked for. `keys`, one a row, are
    what precomputed answers are found by; with them, `inputs` may be empty."""

    model: str
    inputs: Inputs
    request_id: str
    version: str | None = None
    key: str | None = None
    wanted: tuple[str, ...] | None = None
    protocol: str = "python"
    deadline: float | None = None
    caller: str = ""
    keys: Sequence[bytes] | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Outputs by name, and which version gave them. `source` and `age` (seconds) tell of models with precomputed answers
    who answered: precomputed, live, stale or default."""

    outputs: Outputs
    rows: int
    model: str
    version: int
    digest: str
    request_id: str
    source: str = ""
    age: float = 0.0


_serial = itertools.count()
_process = ""


def _forget_process() -> None:
    global _process  # noqa: PLW0603 - a forked process is another one
    _process = ""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_process)


def new_request_id() -> str:
    """Unique across processes and restarts: 16 random hex digits of the process, then a serial number."""
    global _process  # noqa: PLW0603 - made at first use
    if not _process:
        _process = os.urandom(8).hex()
    return f"{_process}-{next(_serial):x}"
