"""Lines of the history, before they have a number."""

from __future__ import annotations

import msgspec

from fairway.core.clock import utc_now
from fairway.core.version import Change


def change(
    model: str, what: str, before: object, after: object, who: str, why: str, restores: int | None = None
) -> Change:
    """`before` and `after` are values as they are; None where there was, or is, nothing."""
    return Change(
        sequence=0,  # given when it is appended
        model=model,
        what=what,
        before=None if before is None else msgspec.json.encode(before).decode(),
        after=None if after is None else msgspec.json.encode(after).decode(),
        who=who,
        why=why,
        when=utc_now(),
        restores=restores,
    )
