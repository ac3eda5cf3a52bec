"""A data port in this process: the real protocol and application on a real socket, around a plane of a test's own."""

import http.client
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvicorn

from fairway.core.settings import LimitSettings, LogSettings, ServingSettings, Settings
from fairway.inference.plane import Plane
from fairway.security.access import Access
from fairway.serving.app import DataApp
from fairway.serving.protocol import protocol_for
from tests.asking import ask


class Port:
    """A port to send to."""

    def __init__(self, number: int, app: DataApp, server: uvicorn.Server) -> None:
        self.number = number
        self.app = app
        self.server = server

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        return ask(f"127.0.0.1:{self.number}", method, path, body, **headers)

    def infer(
        self, value: Any, path: str = "/v2/models/m/infer", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, Any]:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        status, told, content = self.ask("POST", path, body, **headers)
        return status, told, json.loads(content)

    @contextmanager
    def raw(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.number), timeout=20) as connection:
            yield connection


Serve = Callable[..., Port]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves a plane: `serve(plane, serving=..., limits=...)`."""
    with ExitStack() as running:
        yield lambda plane, **options: running.enter_context(_served(plane, **options))


@contextmanager
def _served(
    plane: Plane,
    serving: ServingSettings | None = None,
    limits: LimitSettings | None = None,
    access: Access | None = None,
    log: LogSettings | None = None,
) -> Iterator[Port]:
    settings = Settings(
        serving=serving or ServingSettings(), limits=limits or LimitSettings(), log=log or LogSettings()
    )
    app = DataApp(plane, settings, access=access)
    config = uvicorn.Config(
        app,
        http=protocol_for(app),
        loop="uvloop",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=10,
    )
    config.server_header = False
    server = uvicorn.Server(config)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield Port(listening.getsockname()[1], app, server)
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()
    app._pool.shutdown()
    app.labels.close()


def read_answers(connection: socket.socket, count: int) -> list[tuple[int, dict[str, str], bytes]]:
    """The next `count` answers of a connection."""
    stream = connection.makefile("rb")
    answers = []
    for _ in range(count):
        status = int(stream.readline().split()[1])
        headers = {}
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        answers.append((status, headers, stream.read(int(headers.get("content-length", 0)))))
    return answers
