"""Time as text, in one form everywhere: UTC, ISO 8601, microseconds, trailing Z. And when a clock is not to be believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

_ODD_SECONDS = 86_400.0
_TRUST_SECONDS = 3600.0


def utc_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def utc_now() -> str:
    return utc_text(datetime.now(UTC))


def moment_of(text: str) -> datetime:
    """The moment that an ISO 8601 text with a zone names; ValueError for any other."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment


def seconds_between(earlier: str, later: str) -> float:
    return (moment_of(later) - moment_of(earlier)).total_seconds()


def after(text: str, seconds: float) -> str:
    """The moment so many seconds later; the end of all times when there is none."""
    try:
        return utc_text(moment_of(text) + timedelta(seconds=seconds))
    except OverflowError:
        return utc_text(datetime.max.replace(tzinfo=UTC))


class Clock(msgspec.Struct, frozen=True):
    """The last time that somebody who forgets by age looked at the clock, and since when it shows a time that it jumped to."""

    seen: float = 0.0
    odd_since: float = 0.0


def trusted(before: Clock, now: float, *, jump_seconds: float = _ODD_SECONDS) -> tuple[Clock, bool]:
    """Whether the clock may decide what is old. After a jump of more than `jump_seconds` ahead it has to go on for an hour from
    there first: a clock that was wrong for a moment removes nothing."""
    if before.seen == 0.0 or now <= before.seen + jump_seconds:
        since = before.odd_since if before.odd_since <= now else 0.0
        if since and now - since < _TRUST_SECONDS:
            return Clock(now, since), False
        return Clock(now), True
    return Clock(now, now), False
