"""A connection within a time that holds for all of it: finding the address, and trying one after the other."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any


def connected(host: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection, whose own time-out is then `seconds`. OSError; TimeoutError when it took too long. The system's
    resolver knows no time-out, so it is asked in a thread, which is left behind when it hangs."""
    deadline = time.monotonic() + seconds
    failure: OSError = TimeoutError(f"{host} was not found within {seconds:g} s")
    for family, kind, protocol, _, address in _addresses(host, port, seconds):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(left)
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
            continue
        connection.settimeout(seconds)
        return connection
    raise failure


def _addresses(host: str, port: int, seconds: float) -> list[Any]:
    found: list[list[Any]] = []
    failures: list[Exception] = []

    def resolve() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failures.append(error)

    thread = threading.Thread(target=resolve, name="alerts-resolver", daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    return found[0] if found else []
