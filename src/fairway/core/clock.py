"""Time as text, in one form everywhere: UTC, ISO 8601, microseconds, trailing Z."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


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
