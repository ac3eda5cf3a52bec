"""Requests through a protocol's codec and the real request path, without a socket."""

import json
from typing import Any

from fairway.inference.plane import Plane
from fairway.serving.answers import heading_from
from fairway.serving.entrance import Entry, Router, Written
from fairway.serving.entrances import ENTRIES
from tests.planes import plane


class Asked:
    """Asks entries for predictions; `status` is 200 or the codec's own for an error."""

    def __init__(self, plane: Plane | None = None, entries: tuple[Entry, ...] = ENTRIES) -> None:
        self.plane = plane or default_plane()
        self.router = Router(entries)

    def __call__(self, path: str, body: Any, *, safe: bool = False, **headers: str) -> tuple[int, Written]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        told = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
        target = self.router.find("POST", path.encode()).target
        assert target is not None
        try:
            heading = heading_from(target, told, "r1", self.plane.table)
            live = self.plane.table[heading.model].primary
            reading = target.codec.read(target, heading, content, told, live.contract)
            outputs = self.plane.infer(reading.request).outputs
            return 200, target.codec.write(reading, outputs, live)
        except Exception as error:  # noqa: BLE001 - the codec words every error
            return target.codec.word(error, "r1", safe=safe)

    def json(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        status, written = self(path, body, **headers)
        assert written.content_type == b"application/json"
        return status, json.loads(written.body)


def default_plane() -> Plane:
    return plane()
