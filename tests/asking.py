"""A request over HTTP by the standard library alone, as tests send it."""

import http.client

Answer = tuple[int, http.client.HTTPMessage, bytes]
"""Status, headers, body."""


def ask(address: str, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """`address` is host:port; headers are written with underscores."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()
