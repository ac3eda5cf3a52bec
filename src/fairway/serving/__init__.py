"""Entrances: bytes of a protocol to a `Request`, an `Answer` to bytes, and the processes that do it."""
