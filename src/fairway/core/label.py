"""A label: what became of something that was predicted, told later by who knows."""

from __future__ import annotations

import msgspec

ANY_MODEL = "_"
"""Stands for the model of a label that names none: it belongs to whichever predicted that request."""


class Label(msgspec.Struct, frozen=True, gc=False):
    """`value` is JSON. It is for row `row` (from 0) of a request, or for the newest prediction of `key` up to its time;
    exactly one of `request_id` and `key` is not empty. `time` is when it was known, microseconds since 1970: of several
    for the same row the latest counts."""

    model: str
    value: bytes
    time: int
    request_id: str = ""
    key: str = ""
    row: int = 0
