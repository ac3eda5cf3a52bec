"""A V2 server of a few lines, whose behaviour a test decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Answer = tuple[int, bytes]


@dataclass
class Stub:
    """`pages` are answers by path; `infer` answers everything posted elsewhere. `asked` keeps method, path, headers and
    body of every request."""

    pages: dict[str, Answer] = field(default_factory=dict)
    infer: Callable[[int], Answer] = lambda number: (200, b'{"outputs":[]}')
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    close_every: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def posted(self) -> list[tuple[str, str, dict[str, str], bytes]]:
        return [asked for asked in self.asked if asked[0] == "POST" and "repository" not in asked[1]]

    def describe(self, model: str, inputs: list[dict[str, Any]]) -> None:
        body = json.dumps(
            {"name": model, "versions": ["1"], "platform": "x", "inputs": inputs, "outputs": []}
        )
        self.pages[f"/v2/models/{model}"] = (200, body.encode())


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with lock:
                posted = len(stub.posted)
                stub.asked.append((self.command, self.path, dict(self.headers), body))
            if self.path in stub.pages:
                status, content = stub.pages[self.path]
            elif self.command == "POST" and "repository" not in self.path:
                status, content = stub.infer(posted)
            else:
                status, content = 404, b"no such page"
            last = stub.close_every and posted % stub.close_every == stub.close_every - 1
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            if last:
                self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that cuts its connection at the end of a run

    server = Server(("127.0.0.1", 0), Handler)
    stub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield stub
    server.shutdown()
    thread.join()
    server.server_close()
