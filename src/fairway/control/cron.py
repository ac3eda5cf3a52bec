"""When a schedule is due: cron on the clocks of a time zone, as Debian's cron has it, by the library cronsim.

On the night when clocks go forward, a time that is skipped counts when the clocks have gone forward: 02:30 is due at
03:00. When they go back, a time that comes twice counts the first time only. A schedule whose minutes or hours begin with
`*` goes by what has passed, not by the clock's face: it is due in both hours, and in none that there is not.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cronsim import CronSim, CronSimError

from fairway.core.errors import InvalidInput

_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MOST_TEXT = 200
_MOST_TIMES = 10_000
_EXAMPLE = (
    'Write minute, hour, day of month, month and day of week, such as "0 2 * * *" for every day at 02:00.'
)


def check_cron(cron: str, time_zone: str) -> None:
    """InvalidInput for what is not cron, for a time zone that nobody knows, and for what is never due (31 February)."""
    zone_of(time_zone)
    if next_due(cron, time_zone, datetime.now(UTC)) is None:
        raise _never(cron)


def zone_of(time_zone: str) -> zoneinfo.ZoneInfo:
    """InvalidInput."""
    try:
        return zoneinfo.ZoneInfo(time_zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(
            f"{time_zone!r} is not a time zone that this machine knows.",
            hint="Write UTC, or a name such as Europe/Berlin.",
        ) from None


def next_due(cron: str, time_zone: str, after: datetime) -> datetime | None:
    """The first time after `after`, in UTC; None when there is none within 50 years. InvalidInput."""
    times = _times(cron, time_zone, after)
    # cronsim begins from the clock's face: in an hour that comes twice it may tell a time that is past.
    return next((due for due in times if due > after), None)


def due_between(cron: str, time_zone: str, after: datetime, until: datetime) -> tuple[datetime | None, int]:
    """The last time that is due after `after` and not after `until`, and how many there are. The count ends at 10,000."""
    if until <= after:
        return None, 0
    first = next_due(cron, time_zone, after)
    if first is None or first > until:
        return None, 0
    last, count = first, 1
    for due in _times(cron, time_zone, first):
        if due > until or count >= _MOST_TIMES:
            break
        if due > last:
            last, count = due, count + 1
    if count >= _MOST_TIMES:
        last = _last_until(cron, time_zone, last, until)
    return last, count


def _last_until(cron: str, time_zone: str, after: datetime, until: datetime) -> datetime:
    """By reading backwards."""
    zone = zone_of(time_zone)
    for due in CronSim(_fields(cron), (until + timedelta(seconds=1)).astimezone(zone), reverse=True):
        moment = due.astimezone(UTC)
        if moment <= until:
            return max(moment, after)
    return after


def _times(cron: str, time_zone: str, after: datetime) -> _Times:
    return _Times(_parsed(cron, time_zone, after))


class _Times:
    """Times in UTC, ascending but for an hour that comes twice; none where cronsim gives up."""

    def __init__(self, times: CronSim) -> None:
        self._times = times

    def __iter__(self) -> _Times:
        return self

    def __next__(self) -> datetime:
        try:
            return next(self._times).astimezone(UTC)
        except (OverflowError, ValueError):  # the end of the calendar
            raise StopIteration from None


def _parsed(cron: str, time_zone: str, after: datetime) -> CronSim:
    try:
        return CronSim(_fields(cron), after.astimezone(zone_of(time_zone)))
    except CronSimError as error:
        if "day-of-month" in str(error) and _is_a_day_that_no_month_has(cron):
            raise _never(cron) from None
        reason = str(error).replace("Bad ", "the ").replace("Wrong", "wrong")
        raise InvalidInput(f"{cron!r} is not cron: {reason}.", hint=_EXAMPLE) from None


@lru_cache(maxsize=1024)
def _fields(cron: str) -> str:
    text = cron.strip()
    if len(text) > _MOST_TEXT:
        raise InvalidInput(f"A cron expression of {len(text)} characters cannot be.", hint=_EXAMPLE)
    return _NAMED.get(text.lower(), text)


def _is_a_day_that_no_month_has(cron: str) -> bool:
    """Whether it would be cron if its month were every month: then the days are right and the months lack them."""
    fields = _fields(cron).split()
    fields[-2] = "*"
    try:
        CronSim(" ".join(fields), datetime.now(UTC))
    except CronSimError:
        return False
    return True


def _never(cron: str) -> InvalidInput:
    return InvalidInput(
        f"{cron!r} is never due: no month that it names has such a day.", hint="Check its day and its month."
    )
