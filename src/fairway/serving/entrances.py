"""Every entrance of the data port, in the order in which paths are looked up."""

from __future__ import annotations

from fairway.serving import open_inference, operations
from fairway.serving.entrance import Entry

ENTRIES: tuple[Entry, ...] = (*open_inference.ENTRIES, *operations.ENTRIES)
