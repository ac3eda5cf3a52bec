"""Who may call what, on the short way and on the long one."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from fairway.core.route import everything_to
from fairway.inference.live import LiveModel
from fairway.security.access import Access
from fairway.security.keys import AccessKey, new_key
from tests.planes import Adding, live_version, plane, split
from tests.unit.serving.conftest import Port, Serve

NOW = datetime.now(UTC)
ROWS = {"instances": [[1, 2]]}


def key(name: str, **options: object) -> tuple[AccessKey, str]:
    options.setdefault("scopes", ("infer",))
    return new_key(name, now=NOW, **options)  # type: ignore[arg-type]


KEYS = {
    "all": key("all"),
    "mine": key("mine", models=("m",)),
    "theirs": key("theirs", models=("two",)),
    "metrics": key("metrics", scopes=("metrics",)),
    "admin": key("admin", scopes=("admin",)),
    "once": key("once", rate=0.001, burst=1),
    "alone": key("alone", concurrency=1),
}
ACCESS = Access([made for made, _ in KEYS.values()])


@pytest.fixture
def port(serve: Serve) -> Port:
    return serve(plane(), access=ACCESS)


def code(port: Port, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    status, _, told = port.ask(method, path, body, **headers)
    return status, json.loads(told).get("code", "") if told.startswith(b"{") else ""


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("all", (200, "")),
        ("mine", (200, "")),
        ("theirs", (403, "forbidden")),
        ("metrics", (403, "forbidden")),
        (None, (401, "unauthenticated")),
    ],
)
@pytest.mark.parametrize("header", ["bearer", "key"])
@pytest.mark.parametrize("rows", [1, 40_000])
def test_predictions(port: Port, who: str | None, header: str, rows: int, expected: tuple[int, str]) -> None:
    body = json.dumps({"instances": [[1, 2]] * rows}).encode()
    secret = KEYS[who][1] if who else "fw_000000000000_" + "A" * 43
    sent = {"authorization": f"Bearer {secret}"} if header == "bearer" else {"x_api_key": secret}
    assert code(port, "POST", "/v2/models/m/infer", body, **sent) == expected


def test_without_a_key(port: Port) -> None:
    status, headers, told = port.infer(ROWS)
    assert (status, told["code"]) == (401, "unauthenticated")
    assert headers["www-authenticate"].startswith("Bearer")
    assert code(port, "GET", "/v2/health/live")[0] == code(port, "GET", "/v2/health/ready")[0] == 200
    assert code(port, "GET", "/v2/models/m") == (401, "unauthenticated")
    assert port.ask("GET", "/metrics")[0] == 401


def test_a_key_that_may_not_know_a_model_does_not_learn_that_it_is_there(port: Port) -> None:
    secret = KEYS["theirs"][1]
    for name in ("m", "nobody"):
        assert code(port, "POST", f"/v2/models/{name}/infer", b"{}", x_api_key=secret) == (403, "forbidden")
        assert code(port, "GET", f"/v2/models/{name}", x_api_key=secret) == (403, "forbidden")


def test_each_scope_opens_its_own_paths(port: Port) -> None:
    assert port.ask("GET", "/metrics", x_api_key=KEYS["metrics"][1])[0] == 200
    assert port.ask("GET", "/metrics", x_api_key=KEYS["all"][1])[0] == 403
    assert port.ask("GET", "/v2/models/m", x_api_key=KEYS["mine"][1])[0] == 200


def test_a_rate_is_kept_and_says_when_to_come_back(port: Port) -> None:
    secret = KEYS["once"][1]
    assert port.infer(ROWS, x_api_key=secret)[0] == 200
    status, headers, told = port.infer(ROWS, x_api_key=secret)
    assert (status, told["code"]) == (429, "rate_limited")
    assert int(headers["retry-after"]) > 1


def test_concurrency_is_counted_until_the_answer(serve: Serve) -> None:
    gate, entered = threading.Event(), threading.Event()

    def wait(columns: object) -> None:
        entered.set()
        assert gate.wait(20)

    version = live_version(1, Adding(before=wait))
    port = serve(
        plane(LiveModel(everything_to("m", 1), {1: version}, {}), inline_seconds=-1.0), access=ACCESS
    )
    secret = KEYS["alone"][1]
    answers: list[int] = []
    first = threading.Thread(target=lambda: answers.append(port.infer(ROWS, x_api_key=secret)[0]))
    first.start()
    assert entered.wait(20)
    assert port.infer(ROWS, x_api_key=secret)[0] == 429
    gate.set()
    first.join()
    assert [*answers, port.infer(ROWS, x_api_key=secret)[0]] == [200, 200]
    with port.raw() as leaving:  # whoever leaves is not counted any more
        gate.clear()
        entered.clear()
        leaving.sendall(
            b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\ncontent-length: 23\r\n\r\n"
            b'{"instances": [[1, 2]]}' % secret.encode()
        )
        assert entered.wait(20)
    gate.set()
    for _ in range(200):
        if port.infer(ROWS, x_api_key=secret)[0] == 200:
            return
        time.sleep(0.02)
    raise AssertionError("the place of a caller who left was never free again")


def test_a_new_set_of_keys_counts_from_the_next_request(port: Port) -> None:
    secret = KEYS["all"][1]
    assert port.infer(ROWS, x_api_key=secret)[0] == 200
    port.app.access = Access([KEYS["mine"][0]])
    assert port.infer(ROWS, x_api_key=secret)[0] == 401
    expired, old = key("old", expires=NOW + timedelta(microseconds=1))
    port.app.access = Access([expired])
    assert port.infer(ROWS, x_api_key=old)[2]["code"] == "unauthenticated"


def test_without_keys_all_is_open_but_administration(serve: Serve) -> None:
    port = serve(plane(split("m", 1.0)), access=Access())
    assert port.infer(ROWS)[0] == 200
    assert port.ask("GET", "/metrics")[0] == 200
    status, told = code(port, "POST", "/v2/repository/index", b"{}")
    assert (status, told) in [(403, "forbidden"), (404, "no_such_path")]
