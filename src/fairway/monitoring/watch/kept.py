"""Reports and summaries as they are kept: JSON, which has no infinities."""

from __future__ import annotations

import logging
import math
import sys
from typing import Any

import msgspec

from fairway.monitoring.watch.values import Report, Summary
from fairway.stores.windows import WatchedWindow

logger = logging.getLogger("fairway.monitoring")

_report = msgspec.json.Decoder(Report)
_summary = msgspec.json.Decoder(Summary)


def encoded(value: Report | Summary) -> bytes:
    """An infinity becomes the largest number; what is not a number is left out."""
    return msgspec.json.encode(_finite(msgspec.to_builtins(value)))


def report_in(window: WatchedWindow) -> Report | None:
    """None for one that cannot be read, such as one that another Fairway wrote."""
    try:
        return _report.decode(window.report)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _say(window, error)
        return None


def summary_in(window: WatchedWindow) -> Summary | None:
    """None for one that cannot be read."""
    try:
        return _summary.decode(window.summary)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _say(window, error)
        return None


def _say(window: WatchedWindow, error: Exception) -> None:
    key = window.key
    logger.warning("what is kept of %s:%s at %s cannot be read: %s", key.model, key.version, key.start, error)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else math.copysign(sys.float_info.max, value)
    if isinstance(value, dict):
        return {name: shown for name, item in value.items() if (shown := _finite(item)) is not None}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
