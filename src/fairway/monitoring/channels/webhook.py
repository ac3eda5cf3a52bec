"""Any receiver: the event as JSON, signed as the Standard Webhooks specification has it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from fairway.core.alert_settings import ChannelSettings
from fairway.core.errors import DeliveryFailed, SettingsError
from fairway.core.incident import Incident, Message
from fairway.monitoring.channels.http import post
from fairway.monitoring.channels.secret import Secret
from fairway.monitoring.notices import explanation, headline, link
from fairway.security.webhooks import sign


class HttpChannel:
    """What the channels over HTTP share: subclasses say what the body is."""

    refresh_seconds = 0.0

    def __init__(
        self, settings: ChannelSettings, environ: Mapping[str, str], *, address: str, name: str = ""
    ) -> None:
        self.timeout_seconds = settings.timeout_seconds
        self.name = name
        self._settings = settings
        self._url = Secret(settings.url, environ)
        self._headers = {name: Secret(value, environ) for name, value in settings.headers.items()}
        self._secret = Secret(settings.secret, environ)
        self._address = address
        """The dashboard's."""

    def send(self, message: Message) -> str:
        return self._post(self.payload(message), message.id)

    def refresh(self, incidents: tuple[Incident, ...]) -> None:
        return

    def payload(self, message: Message) -> object:
        raise NotImplementedError

    def _post(self, payload: object, message_id: str, path: str = "") -> str:
        body = msgspec.json.encode(payload)
        try:
            headers = {name: secret.read() for name, secret in self._headers.items()}
            url = self._url.read()
            if self._secret:
                headers |= sign(
                    self._secret.read(), message_id=message_id, timestamp=int(time.time()), body=body
                )
            return post(
                url.rstrip("/") + path if path else url,
                body,
                headers,
                timeout_seconds=self.timeout_seconds,
                ca_file=self._settings.ca_file,
            )
        except SettingsError as error:  # somebody may set it right, so the message waits
            raise DeliveryFailed(str(error)) from error


class WebhookChannel(HttpChannel):
    def payload(self, message: Message) -> object:
        event = message.event
        return {
            "type": f"incident.{event.kind}",
            "timestamp": event.when,
            "id": message.id,
            "text": headline(event),
            "details": explanation(event),
            "link": link(message, self._address),
            "data": event,
        }
