"""The log of this process: one line an event. What is used when no channel is set up."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fairway.core.alert_settings import ChannelSettings
from fairway.core.incident import Incident, Message
from fairway.monitoring.notices import explanation, headline

logger = logging.getLogger("fairway.alerts")
_LEVELS = {"critical": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}


class LogChannel:
    refresh_seconds = 0.0

    def __init__(
        self, settings: ChannelSettings, environ: Mapping[str, str], *, address: str, name: str = ""
    ) -> None:
        self.timeout_seconds = settings.timeout_seconds

    def send(self, message: Message) -> str:
        event = message.event
        # What is over is as loud as what began, or a log that shows warnings never says so.
        level = _LEVELS[event.incident.severity]
        reasons = "; ".join(explanation(event))
        logger.log(
            level,
            "%s%s (incident %s)",
            headline(event),
            f" - {reasons}" if reasons else "",
            event.incident.id,
        )
        return "logged"

    def refresh(self, incidents: tuple[Incident, ...]) -> None:
        return
