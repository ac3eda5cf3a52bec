"""Users of the film service, as its front page sees them: most open it and leave, some watch films.

    python -m examples.recommendations.watch --users users.parquet --url http://127.0.0.1:8080

Whoever opens the page is recommended what was computed at night: only the `user_id` is sent. Whoever has watched a film
since is sent to the model with the five films watched last. Prints who answered how many requests, and how quickly.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from examples.recommendations.train import FIELDS

ACTIVE = 0.2
"""Share of the users who watch films."""


class Page:
    """The front page: asks the server for what to show."""

    def __init__(self, url: str, model: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        self._path = f"/v1/models/{model}:predict"
        self.seconds: dict[str, list[float]] = defaultdict(list)
        """By who answered."""

    def films(self, user: str, recent: list[int] | None = None) -> list[int]:
        """The ten films to show; `recent` are the last five of a user who has watched since last night."""
        row: dict[str, Any] = {"user_id": user, **dict(zip(FIELDS, recent or (), strict=False))}
        body = json.dumps({"instances": [row], "signature_name": "films"})
        began = time.perf_counter()
        self._connection.request("POST", self._path, body, {"content-type": "application/json"})
        answer = self._connection.getresponse()
        content = json.loads(answer.read())
        self.seconds[answer.headers["fairway-source"] or "nobody"].append(time.perf_counter() - began)
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {content['error']}")
        found: list[int] = content["predictions"][0]
        return found

    def close(self) -> None:
        self._connection.close()


def visit(page: Page, users: pd.DataFrame, *, visits: int, seed: int = 7) -> int:
    """Users come at random; active ones watch the first film that they are shown, three times. Returns how many films
    were watched."""
    chance = np.random.default_rng(seed)
    watched = 0
    for number in chance.integers(0, len(users), visits):
        user = users.user_id[number]
        shown = page.films(user)
        if chance.random() < ACTIVE:
            recent = users.loc[number, list(FIELDS)].tolist()
            for _ in range(3):
                recent = [shown[0], *recent[:-1]]
                shown = page.films(user, recent)
                assert not set(shown) & set(recent)
                watched += 1
    return watched


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Simulate users of the film service.")
    parser.add_argument("--users", type=Path, required=True)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--model", default="films")
    parser.add_argument("--visits", type=int, default=300)
    given = parser.parse_args(arguments)
    page = Page(given.url, given.model)
    watched = visit(page, pd.read_parquet(given.users), visits=given.visits)
    page.close()
    print(f"{given.visits} visits, {watched} films watched")
    for source, seconds in sorted(page.seconds.items()):
        print(f"{source:12} {len(seconds):5}  median {1000 * statistics.median(seconds):.2f} ms")


if __name__ == "__main__":
    main()
