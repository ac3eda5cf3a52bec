"""Connections within a time, also where finding the address hangs."""

import socket
import threading
from typing import Any

import pytest

from fairway.core.alert_settings import AlertSettings, ChannelSettings
from fairway.core.errors import DeliveryFailed
from fairway.monitoring.channels.connecting import connected
from fairway.monitoring.channels.opening import open_channels
from tests.unit.monitoring.messages import message


def test_a_resolver_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hangs(*asked: Any, **named: Any) -> list[Any]:
        over.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    hook = ChannelSettings(kind="webhook", url="https://hook.example/", timeout_seconds=0.2)
    mail = ChannelSettings(
        kind="smtp",
        host="mail.example",
        sender="a@b.example",
        recipients=("c@d.example",),
        timeout_seconds=0.2,
    )
    channels = open_channels(AlertSettings(channels={"hook": hook, "mail": mail}), {})
    for name, said in (("hook", "did not answer within"), ("mail", "did not take the mail within")):
        with pytest.raises(DeliveryFailed, match=said):
            channels[name].send(message())
    over.set()


def test_names_that_nobody_has_and_ports_where_nobody_listens() -> None:
    with pytest.raises(OSError, match=r"not known|No address|failure in name"):
        connected("no-such-host.invalid", 80, 5.0)
    with pytest.raises(UnicodeError):
        connected("a" * 64 + ".example", 80, 5.0)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        connected("127.0.0.1", port, 5.0)


def test_each_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = closed.getsockname()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = listener.getsockname()
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **named: [(*kind, gone), (*kind, here)])
        with connected("two.example", here[1], 5.0) as connection:
            assert connection.getpeername() == here
            assert connection.gettimeout() == 5.0
