"""Generations of precomputed answers, as a run would begin them."""

from typing import Any

from fairway.stores.answers import Generation, new_id


def generation(digest: str = "sha256:1", **changes: Any) -> Generation:
    values: dict[str, Any] = {
        "id": new_id(),
        "model": "m",
        "version": 1,
        "digest": digest,
        "signature": "s",
        "layout": b"\x90",
        "began": 100.0,
        "ttl_seconds": 60.0,
        **changes,
    }
    return Generation(**values)
