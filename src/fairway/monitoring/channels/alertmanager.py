"""Prometheus Alertmanager, by its API v2. It forgets alerts that are not sent again, so what is open is, every
`refresh_seconds`; an open alert is said to hold for an hour beyond that, so that a watcher that restarts is not a recovery.

Source: github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairway.core.alert_settings import ChannelSettings
from fairway.core.clock import after, utc_now
from fairway.core.incident import SEVERITIES, Event, Incident, Message, rank
from fairway.monitoring.alert_rules import channels_for
from fairway.monitoring.channels.webhook import HttpChannel
from fairway.monitoring.notices import explanation, headline, link
from fairway.monitoring.wording import subject

_PATH = "/api/v2/alerts"
_HOLD_SECONDS = 3600.0
_AT_ONCE = 100


class AlertmanagerChannel(HttpChannel):
    def __init__(
        self, settings: ChannelSettings, environ: Mapping[str, str], *, address: str, name: str = ""
    ) -> None:
        super().__init__(settings, environ, address=address, name=name)
        self.refresh_seconds = settings.refresh_seconds

    def send(self, message: Message) -> str:
        return self._post(self.payload(message), message.id, _PATH)

    def refresh(self, incidents: tuple[Incident, ...]) -> None:
        """Again what is open, was told here and is not silenced."""
        now = utc_now()
        mine = {self.name: self._settings}
        alerts = [
            self._alert(event, self._settings, now, address="")
            for incident in incidents
            if incident.announced and not incident.muted
            for event in [Event(kind="opened", when=incident.updated, incident=incident, notify=True)]
            if channels_for(event, mine)
        ]
        for first in range(0, len(alerts), _AT_ONCE):
            self._post(alerts[first : first + _AT_ONCE], "refresh", _PATH)

    def payload(self, message: Message) -> list[dict[str, Any]]:
        """The alert; when it is worse or over, also that it no longer is what it was: the severity is a label."""
        event, now = message.event, utc_now()
        address = link(message, self._address)
        alerts = [self._alert(event, self._settings, now, address)]
        if event.kind in ("raised", "resolved"):
            alerts += [
                {**alerts[0], "labels": {**alerts[0]["labels"], "severity": lower}, "endsAt": now}
                for lower in SEVERITIES[: rank(event.incident.severity)]
            ]
        return alerts

    def _alert(self, event: Event, settings: ChannelSettings, now: str, address: str) -> dict[str, Any]:
        incident = event.incident
        is_over = event.kind in ("resolved", "test")
        hold = max(_HOLD_SECONDS, 4 * settings.refresh_seconds)
        alert: dict[str, Any] = {
            "labels": {
                **settings.labels,
                "alertname": "FairwayTest" if event.kind == "test" else "FairwayIncident",
                "model": incident.model,
                "version": str(incident.version or ""),
                "severity": incident.severity,
                "incident": incident.id,
            },
            "annotations": {
                "summary": headline(event) if is_over else f"[{incident.severity}] {incident.title}",
                "description": "\n".join(explanation(event)),
                "subject": subject(incident.model, incident.version),
            },
            "startsAt": incident.opened or now,
            "endsAt": now if event.kind == "resolved" else after(now, 60.0 if is_over else hold),
        }
        alert["labels"] = {name: value for name, value in alert["labels"].items() if value}
        if address:
            alert["generatorURL"] = address
        return alert
