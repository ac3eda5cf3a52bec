"""Traffic that goes on, and models to change under it."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fairway.serving.folder import ServerFolder
from fairway.serving.repository import ServerRepository
from tests.e2e.servers import Server


def folder_of(server: Server) -> ServerFolder:
    """The folder through which the server's processes talk."""
    arguments = Path(f"/proc/{server.workers()[0]}/cmdline").read_text().split("\0")
    return ServerFolder(Path(next(a for a in arguments if a.endswith(".json"))).parent)


def repository_of(server: Server, workers: int = 1) -> ServerRepository:
    return ServerRepository(folder_of(server), workers, 60.0)


@dataclass
class Traffic:
    """What clients got: `answers` by version header, `failures` in words, `seconds` of each request."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopping: bool = False

    @property
    def count(self) -> int:
        return sum(self.answers.values()) + len(self.failures)

    def wait_for(self, more: int) -> None:
        """Until that many more requests have been answered."""
        until, deadline = self.count + more, time.monotonic() + 60
        while self.count < until:
            assert time.monotonic() < deadline, self
            time.sleep(0.005)


@contextmanager
def traffic(address: str, path: str, body: object, clients: int = 4, pause: float = 0.0) -> Iterator[Traffic]:
    """Clients that ask again and again, each on a connection it keeps."""
    seen = Traffic()
    payload = json.dumps(body).encode()

    def ask() -> None:
        connection: http.client.HTTPConnection | None = None
        while not seen.stopping:
            began = time.perf_counter()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(address, timeout=30)
                connection.request("POST", path, payload, {"content-type": "application/json"})
                answer = connection.getresponse()
                content = answer.read()
                if answer.status == 200:
                    seen.answers[answer.headers["fairway-version"]] += 1
                else:
                    seen.failures.append(f"{answer.status} {content.decode()}")
            except (OSError, http.client.HTTPException) as error:
                seen.failures.append(repr(error))
                if connection is not None:
                    connection.close()
                connection = None
            seen.seconds.append(time.perf_counter() - began)
            if pause:
                time.sleep(pause)
        if connection is not None:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        seen.stopping = True
        for thread in threads:
            thread.join()
