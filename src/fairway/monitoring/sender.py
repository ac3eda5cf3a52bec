"""Sends what waits in the outbox: a thread for every channel, so that one that hangs holds up no other.

Several processes may run a sender on one store: each channel is sent to by one at a time. A process that is killed
between sending and saying so sends again what it was sending; the message's id is the same.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Protocol

from fairway.core.alert_settings import AlertSettings
from fairway.core.clock import utc_now
from fairway.core.errors import DeliveryFailed, FairwayError
from fairway.core.incident import Incident, Message
from fairway.monitoring import outbox
from fairway.stores.alerts import AlertStore

logger = logging.getLogger("fairway.alerts")

POLL_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_LEASE_SLACK_SECONDS = 5.0
"""How much longer than its time-out a message is this process's: for a disk or a database that is slow."""


class Channel(Protocol):
    """Where messages go. `send` returns when the receiver has taken the message, within `timeout_seconds`."""

    timeout_seconds: float
    refresh_seconds: float
    """How often `refresh` is called with what is open; 0: never."""

    def send(self, message: Message) -> str:
        """What the receiver said, for people. DeliveryFailed."""

    def refresh(self, incidents: tuple[Incident, ...]) -> None:
        """Says again what is open, to receivers that forget. DeliveryFailed."""


class Sender:
    """`start` and `stop`, or `deliver` for one round in the caller's own thread."""

    def __init__(
        self,
        store: AlertStore,
        channels: Mapping[str, Channel],
        settings: AlertSettings,
        *,
        poll_seconds: float = POLL_SECONDS,
        now: Callable[[], str] = utc_now,
    ) -> None:
        self._store = store
        self._channels = dict(channels)
        self._settings = settings
        self._poll_seconds = poll_seconds
        self._now = now
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._stopping = threading.Event()
        self._woken = {name: threading.Event() for name in self._channels}
        self._threads: list[threading.Thread] = []
        self._chance = random.Random()  # noqa: S311 - pauses, not secrets

    def start(self) -> None:
        for name in self._channels:
            thread = threading.Thread(target=self._run, args=(name,), name=f"alerts-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def wake(self) -> None:
        """Something may have been written: look at once."""
        for event in self._woken.values():
            event.set()

    def stop(self, seconds: float = 5.0) -> None:
        """Lets what is being sent end for so long. A channel that hangs longer is left: its message waits in the outbox."""
        self._stopping.set()
        self.wake()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def deliver(self, channel: str) -> int:
        """Sends what is due on one channel; how many messages were taken by the receiver. Errors: as `AlertStore`;
        what a receiver says is kept with its message."""
        target = self._channels[channel]
        taken = sent = 0
        while not self._stopping.is_set():
            with self._store.reading() as rows:  # so that an idle sender writes nothing
                is_idle = outbox.due(rows, channel, self._settings, self._now()) is None
            if is_idle:
                break
            with self._store.writing() as rows:
                lease = target.timeout_seconds + _LEASE_SLACK_SECONDS
                message = outbox.take(
                    rows, channel, self._owner, self._settings, self._now(), lease_seconds=lease
                )
            if message is None:
                return sent
            taken += 1
            sent += self._send(target, message)
        if taken:
            with self._store.writing() as rows:
                outbox.release(rows, channel, self._owner, self._now())
        return sent

    def _send(self, target: Channel, message: Message) -> bool:
        try:
            target.send(message)
        except DeliveryFailed as failure:
            self._failed(message, failure)
            return False
        except Exception as error:  # noqa: BLE001 - a channel's mistake must not end its thread
            self._failed(message, DeliveryFailed(f"{type(error).__name__}: {error}"))
            return False
        with self._store.writing() as rows:
            rows.drop_message(message.id)
        return True

    def _failed(self, message: Message, failure: DeliveryFailed) -> None:
        with self._store.writing() as rows:
            after = outbox.failed(rows, message, failure, self._settings, self._now(), self._chance)
        if after is None:
            return
        if after.state == "dead":
            logger.error("channel %s: message %s is given up: %s", message.channel, message.id, failure)
        else:
            logger.warning(
                "channel %s: attempt %d failed, again at %s: %s",
                message.channel,
                after.attempts,
                after.due[:19] + "Z",
                failure,
            )

    def refresh(self, channel: str) -> None:
        """Says again what is open on a channel that forgets."""
        with self._store.reading() as rows:
            found = rows.incidents(states=("open",), limit=1000)
        self._channels[channel].refresh(found)

    def _run(self, channel: str) -> None:
        """The life of a channel's thread. It outlives a database that is away and a receiver that is mad."""
        target, woken = self._channels[channel], self._woken[channel]
        troubles, refreshed = 0, 0.0
        while not self._stopping.is_set():
            try:
                self.deliver(channel)
                if target.refresh_seconds and time.monotonic() - refreshed >= target.refresh_seconds:
                    refreshed = time.monotonic()
                    self.refresh(channel)
                troubles = 0
            except FairwayError as error:
                troubles += 1
                logger.warning("channel %s: %s", channel, error)
            except Exception:
                troubles += 1
                logger.exception("channel %s", channel)
            pause = self._poll_seconds * 2 ** min(troubles, 10)
            woken.wait(min(pause, max(_LONGEST_PAUSE_SECONDS, self._poll_seconds)))
            woken.clear()
