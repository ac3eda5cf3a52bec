"""`{date}` and the like in inputs and outputs, filled with the time that a run is due, on its schedule's clocks.

{date} 2026-11-21   {yesterday} 2026-11-20   {time} 0200   {year} 2026   {month} 11   {day} 21   {hour} 02
{utc} 20261121T010000Z: the only one that no two due times share when clocks go back
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from fairway.core.errors import InvalidInput

NAMES = ("date", "yesterday", "time", "year", "month", "day", "hour", "utc")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


def fill(text: str, due: datetime, zone: ZoneInfo) -> str:
    """`text` with its placeholders filled. InvalidInput for one that there is not."""
    local = due.astimezone(zone)
    values = {
        "date": f"{local:%Y-%m-%d}",
        "yesterday": f"{local.date() - timedelta(days=1):%Y-%m-%d}",
        "time": f"{local:%H%M}",
        "year": f"{local:%Y}",
        "month": f"{local:%m}",
        "day": f"{local:%d}",
        "hour": f"{local:%H}",
        "utc": f"{due.astimezone(UTC):%Y%m%dT%H%M%SZ}",
    }
    unknown = sorted({name for name in _PLACEHOLDER.findall(text) if name not in values})
    if unknown:
        raise InvalidInput(
            f"{{{unknown[0]}}} in {text!r} is not a placeholder.",
            hint=f"There are {', '.join(f'{{{name}}}' for name in NAMES)}.",
        )
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def has_placeholder(text: str) -> bool:
    return bool(_PLACEHOLDER.search(text))
