"""API keys on a real server: who is let in, what they are told, and limits over all workers."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway.app.home import open_home
from fairway.app.keys import create_key, revoke_key
from tests.e2e.servers import Server, serving, until

pytestmark = pytest.mark.e2e

ROWS = {"inputs": [{"name": n, "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]} for n in "abc"]}
LINE, SHOP = "/v2/models/line/infer", "/v2/models/shop/infer"


def make(home: Path, name: str, *scopes: str, **values: Any) -> str:
    with open_home(home) as place:
        return create_key(place, name, scopes=scopes, why="test", **values)[1]


@pytest.fixture
def keys(home_copy: Path) -> dict[str, str]:
    return {
        "app": make(home_copy, "app", "infer"),
        "line": make(home_copy, "line", "infer", models=("line",)),
        "scraper": make(home_copy, "scraper", "metrics"),
        "root": make(home_copy, "root", "admin"),
        "short": make(home_copy, "short", "infer", expires="1s"),
    }


@pytest.fixture
def running(home_copy: Path, keys: dict[str, str]) -> Iterator[Server]:
    with serving(home_copy) as running:
        yield running


def code_of(answer: tuple[int, Any, Any]) -> tuple[int, str]:
    status, _, body = answer
    return status, body.get("code", "")


def test_everybody_needs_a_key_and_it_may_come_in_two_headers(running: Server, keys: dict[str, str]) -> None:
    assert code_of(running.post(ROWS, LINE)) == (401, "unauthenticated")
    assert code_of(running.post(ROWS, LINE, authorization="Bearer fw_nonsense")) == (401, "unauthenticated")
    assert code_of(running.post(ROWS, LINE, authorization="Basic YTpi")) == (401, "unauthenticated")
    for _ in range(3):  # also on the way that remembers
        assert running.post(ROWS, LINE, authorization=f"Bearer {keys['app']}")[0] == 200
        assert running.post(ROWS, LINE, x_api_key=keys["app"])[0] == 200
        assert running.post(ROWS, LINE, x_api_key=keys["app"], authorization="Basic proxy")[0] == 200
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert running.ask("GET", path)[0] == 200


def test_scopes_and_models(running: Server, keys: dict[str, str]) -> None:
    for key, path, wanted in (
        ("line", LINE, (200, "")),
        ("line", SHOP, (403, "forbidden")),
        ("line", "/v2/models/nowhere/infer", (403, "forbidden")),  # not told whether there is such a model
        ("app", "/v2/models/nowhere/infer", (404, "model_not_found")),
        ("scraper", LINE, (403, "forbidden")),
        ("root", LINE, (403, "forbidden")),
    ):
        assert code_of(running.post(ROWS, path, x_api_key=keys[key])) == wanted
    assert running.ask("GET", "/metrics")[0] == 401
    assert running.ask("GET", "/metrics", x_api_key=keys["app"])[0] == 403
    assert running.ask("GET", "/metrics", x_api_key=keys["scraper"])[0] == 200
    assert running.ask("GET", "/v2/models/line", x_api_key=keys["app"])[0] == 200
    assert running.ask("GET", "/v2/models/line")[0] == 401


def test_nobody_learns_which_models_there_are_who_may_not_know(running: Server, keys: dict[str, str]) -> None:
    paths = [
        "/invocations",
        "/v2/models/nowhere/infer",
        "/v1/models/nowhere:predict",
        "/v2/models/shop/infer",
    ]
    for path in paths:
        status, _, body = running.ask("POST", path, b"{}", content_type="application/json")
        assert status == 401
        assert b"line" not in body
    for path in paths:
        status, _, body = running.ask(
            "POST", path, b"{}", content_type="application/json", x_api_key=keys["line"]
        )
        assert status in (403, 404)
        assert b"the model 'shop'" in body or b"shop" not in body
    named = running.ask(
        "POST",
        "/invocations",
        b"{}",
        x_api_key=keys["line"],
        x_fairway_model="shop",
        content_type="application/json",
    )
    assert named[0] == 403
    for who, seen in ((None, set()), ("line", {"line"}), ("app", {"line", "shop"})):
        sent = {} if who is None else {"x_api_key": keys[who]}
        status, _, told = running.ask("GET", "/v2/health/ready", **sent)
        assert (status, set(json.loads(told)["models"])) == (200, seen)


def test_a_key_that_expires_while_the_server_runs_is_refused(running: Server, keys: dict[str, str]) -> None:
    deadline = time.monotonic() + 60
    while code_of(running.post(ROWS, LINE, x_api_key=keys["short"])) != (401, "unauthenticated"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "expired" in running.post(ROWS, LINE, x_api_key=keys["short"])[2]["error"]


def test_a_running_server_learns_of_keys_made_and_revoked(home_copy: Path) -> None:
    with serving(home_copy, "--workers", "2") as running:

        def statuses(**headers: str) -> set[int]:
            return {running.post(ROWS, LINE, **headers)[0] for _ in range(8)}  # both workers

        assert statuses() == {200}
        app, other = make(home_copy, "app", "infer"), make(home_copy, "other", "infer")
        until(lambda: statuses() == {401}, 60)
        assert statuses(x_api_key=app) == {200}
        with open_home(home_copy) as place:
            revoke_key(place, "app", why="leaked")
        until(lambda: statuses(x_api_key=app) == {401}, 60)
        assert "was revoked" in running.post(ROWS, LINE, x_api_key=app)[2]["error"]
        assert statuses(x_api_key=other) == {200}


def test_a_rate_holds_over_all_workers(home_copy: Path) -> None:
    limited = make(home_copy, "limited", "infer", rate=0.001, burst=7)
    seen: Counter[int] = Counter()
    with serving(home_copy, "--workers", "2") as running:

        def ask() -> None:
            for _ in range(10):
                status, told, _ = running.post(ROWS, LINE, x_api_key=limited)
                seen[status] += 1
                assert status == 200 or int(told["retry-after"]) >= 1

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status, _, body = running.post(ROWS, LINE, x_api_key=limited)
        assert code_of((status, _, body)) == (429, "rate_limited")
        assert "0.001 requests per second" in body["error"]
    assert seen == {200: 7, 429: 23}


def test_a_server_without_keys_asks_for_none(home_copy: Path) -> None:
    with serving(home_copy) as running:
        assert running.post(ROWS, LINE)[0] == 200
        assert running.post(ROWS, LINE, authorization="Bearer whatever")[0] == 200
        assert running.ask("GET", "/metrics")[0] == 200


def test_secrets_are_in_no_file_of_the_home_and_in_no_log(home_copy: Path, keys: dict[str, str]) -> None:
    with serving(home_copy) as running:
        assert running.post(ROWS, LINE, x_api_key=keys["app"])[0] == 200
        running.post(ROWS, LINE, x_api_key=keys["app"][:-1] + "!")
        running.post(b"{", LINE, x_api_key=keys["app"])
        errors = running.errors
    assert json.dumps(keys["app"])[1:-1] not in errors.read_text()
    secret = keys["app"].split("_", 2)[2].encode()[:40]
    for path in home_copy.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path
