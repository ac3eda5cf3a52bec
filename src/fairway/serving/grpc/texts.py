"""Small messages of nothing but text, read without protobuf: probes must be answered at once, whatever else goes on."""

from __future__ import annotations

from fairway.core.errors import MalformedInput
from fairway.serving.grpc.wire import fields

TRUE = b"\x08\x01"
"""A message whose first field is a boolean that is true, or an enumeration's 1; false, or 0, is no bytes at all."""


def texts(message: bytes) -> dict[int, str]:
    """The text of each length-delimited field by its number; the last one counts. Raises MalformedInput."""
    found = fields(message)
    try:
        if found is not None:
            return {number: value.decode() for number, value in found}
    except UnicodeDecodeError:
        pass
    raise MalformedInput("The message cannot be read: it should be a few short texts.")
