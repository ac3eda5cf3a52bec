"""One POST with a deadline for all of it, however slowly the other side drips. No redirects, no proxy, no surprises."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from fairway.core.errors import DeliveryFailed, SettingsError
from fairway.core.release import VERSION
from fairway.monitoring.channels.connecting import connected
from fairway.monitoring.channels.reason import reason_of

_MOST_ANSWER_BYTES = 64 * 1024
_SHOWN_BYTES = 200
_NEVER = frozenset({400, 405, 406, 411, 413, 414, 415, 422, 431})
"""Answers to a message that will be the same next time. Others are about the address, a key or the receiver's health, and
somebody may mend those."""


def checked_url(url: str) -> SplitResult:
    """SettingsError for anything but http and https with a host; the message does not show the address, whose path may
    be a secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    bad_port = port == 0
    if parts.scheme not in ("http", "https") or not parts.hostname or bad_port:
        raise SettingsError("A channel's url is not an address that begins with http:// or https://.")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(
            "A channel's url has a name or password in it.",
            hint="Send it as a header: headers = { Authorization = 'env:VARIABLE' }",
        )
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise SettingsError("A channel's url has spaces or control characters in it.")
    return parts


def where(url: str) -> str:
    """The address without what may be a secret."""
    parts = checked_url(url)
    return f"{parts.scheme}://{parts.netloc}"


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout_seconds: float,
    ca_file: str = "",
) -> str:
    """What the receiver answered to the body, shortened, when it took it (2xx); else DeliveryFailed, which names the host
    and not the path."""
    parts = checked_url(url)
    place = where(url)
    deadline = _Deadline(timeout_seconds)
    try:
        connection = _connect(parts, deadline, ca_file)
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(
                "POST",
                target,
                body,
                {"User-Agent": f"fairway/{VERSION}", "Content-Type": "application/json", **headers},
            )
            answer = connection.getresponse()
            said = answer.read(_MOST_ANSWER_BYTES)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        if deadline.is_over or isinstance(error, TimeoutError):
            raise DeliveryFailed(f"{place} did not answer within {timeout_seconds:g} s.") from error
        raise DeliveryFailed(f"{place} cannot be reached: {reason_of(error)}.") from error
    finally:
        deadline.cancel()
    if deadline.is_over:
        raise DeliveryFailed(f"{place} did not answer within {timeout_seconds:g} s.")
    text = " ".join(said[:_SHOWN_BYTES].decode("utf-8", "replace").split())
    if 200 <= answer.status < 300:
        return f"{answer.status} {text}".rstrip()
    if 300 <= answer.status < 400:
        raise DeliveryFailed(
            f"{place} answered {answer.status}: it wants to send us elsewhere, which is not done.",
            hint="Write the address it redirects to as the channel's url.",
        )
    raise DeliveryFailed(
        f"{place} answered {answer.status}{': ' + text if text else ''}.",
        permanent=answer.status in _NEVER,
        retry_after=_retry_after(answer.headers.get("retry-after", "")),
    )


class _Deadline:
    """Cuts the connection when the time is up. A socket's own time-out begins anew with every byte."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_over = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, connection: socket.socket) -> None:
        self._socket = connection
        if self.is_over:
            self._end()

    def cancel(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        self.is_over = True
        if self._socket is not None:
            try:
                # The plain socket's: that of TLS forgets its state, in which another thread may be.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already


def _connect(parts: SplitResult, deadline: _Deadline, ca_file: str) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    is_tls = parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    plain = connected(host, port, deadline.seconds)
    secured: socket.socket = plain
    try:
        deadline.watch(plain)
        if is_tls:
            context = ssl.create_default_context(cafile=ca_file or None)
            secured = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            deadline.watch(secured)
            secured.do_handshake()
    except BaseException:
        secured.close()
        raise
    kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
    connection = kind(host, port, timeout=deadline.seconds)
    connection.sock = secured
    return connection


def _retry_after(text: str) -> float | None:
    """Seconds, from a number or a date (RFC 9110, 10.2.3)."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
