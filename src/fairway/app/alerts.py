"""Incidents of a home: opened with its settings, and the sender that tells its channels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fairway.app.settings import read_settings
from fairway.core.settings import Settings
from fairway.monitoring.alerts import Alerts
from fairway.monitoring.channels.opening import channel_settings, open_channels
from fairway.monitoring.sender import Channel, Sender
from fairway.stores.opening import open_alerts as open_store


class HomeAlerts:
    """`alerts` for what is known and done, `channels` and `sender()` for telling. Close it at the end."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self.settings = settings.alerts
        self.channels: dict[str, Channel] = open_channels(settings.alerts, environ)
        self.store = open_store(Path(settings.home), settings.registry)
        self.alerts = Alerts(self.store, settings.alerts, channel_settings(settings.alerts))

    def sender(self) -> Sender:
        """Not started. One for each process is enough; of several processes, one at a time sends to a channel."""
        return Sender(self.store, self.channels, self.settings)

    def close(self) -> None:
        self.store.close()


@contextmanager
def open_alerts(home: str | os.PathLike[str] | None = None) -> Iterator[HomeAlerts]:
    """Of the home of `read_settings`. SettingsError names every mistake in `[alerts]`."""
    opened = HomeAlerts(read_settings(home), os.environ)
    try:
        yield opened
    finally:
        opened.close()
