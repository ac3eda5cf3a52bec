"""What the data port answers, path by path."""

import json
import threading
import time
from pathlib import Path

import pytest

from fairway import __version__
from fairway.core.route import everything_to
from fairway.core.settings import LimitSettings, ModelSettings, ServingSettings, Settings
from fairway.inference.live import LiveModel
from fairway.stores.counters import Counters
from tests.planes import Adding, Kept, live_version, plane, split
from tests.unit.serving.conftest import Port, Serve

ROWS = {"instances": [[1, 2], [3, 4]]}


@pytest.fixture
def port(serve: Serve) -> Port:
    return serve(
        plane(split("two", 0.3, 0.7), LiveModel(everything_to("m", 1), {1: live_version(1)}, {"champion": 1}))
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", {"name": "fairway", "version": __version__}),
        ("/v2/", {"name": "fairway", "version": __version__}),
        ("/v2/health/live", {"live": True}),
        ("/v2/models/m/ready", {"name": "m", "ready": True}),
        ("/v2/models/m/versions/champion/ready", {"name": "m", "ready": True}),
    ],
)
def test_health_and_server(port: Port, path: str, expected: dict[str, object]) -> None:
    status, headers, body = port.ask("GET", path)
    told = json.loads(body)
    assert (status, {name: told[name] for name in expected}) == (200, expected)
    assert headers["x-request-id"]
    assert headers["content-type"] == "application/json"
    status, headers, nothing = port.ask("HEAD", path)
    assert (status, nothing, headers["content-length"]) == (200, b"", str(len(body)))


def test_not_ready_while_it_stops(port: Port) -> None:
    port.app.ready = False
    for path in ("/v2/health/ready", "/v2/models/m/ready"):
        assert port.ask("GET", path)[0] == 503
    assert port.ask("GET", "/v2/health/live")[0] == 200


@pytest.mark.parametrize(("path", "version"), [("two", 2), ("two/versions/1", 1), ("m/versions/champion", 1)])
def test_metadata(port: Port, path: str, version: int) -> None:
    status, headers, body = port.ask("GET", f"/v2/models/{path}")
    assert status == 200
    told = json.loads(body)
    assert [i["name"] for i in told["inputs"]] == ["a", "b"]
    assert headers["fairway-version"].endswith(f":{version}")
    assert headers["fairway-digest"] == f"sha256:{version}"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "no_such_path"),
        ("GET", "/v2/models", 404, "no_such_path"),
        ("GET", "/v2/models/m/other", 404, "no_such_path"),
        ("GET", "/v2/models/x", 404, "model_not_found"),
        ("GET", "/v2/models/x/ready", 404, "model_not_found"),
        ("GET", "/v2/models/m/versions/9", 404, "version_not_found"),
        ("GET", "/v2/models/m/versions/blue", 404, "alias_not_found"),
        ("GET", "/v2/models/m/versions/9/ready", 404, "version_not_found"),
        ("GET", "/v2/models/m/infer", 405, "method_not_allowed"),
        ("PUT", "/v2/models/m/infer", 405, "method_not_allowed"),
        ("POST", "/metrics", 405, "method_not_allowed"),
        ("DELETE", "/v2/models/m", 405, "method_not_allowed"),
        ("POST", "/v2/models/x/infer", 404, "model_not_found"),
        ("POST", "/v2/models/%2e%2e%2f/infer", 404, "model_not_found"),
        ("POST", "/v2/models/%FF/infer", 404, "model_not_found"),
        ("POST", "/v2/models/m/versions/7/infer", 404, "version_not_found"),
        ("POST", "/v2/models/m/versions/blue/infer", 404, "alias_not_found"),
        ("POST", "/v2/models/m/versions//infer", 404, "alias_not_found"),
        ("POST", "/v2/models/m/versions/" + "9" * 5000 + "/infer", 404, "alias_not_found"),
        ("GET", "/v2/models/m/versions/" + "9" * 5000, 404, "alias_not_found"),
        ("POST", "/v2/models/m/versions/1/infer?x=1", 200, None),
        ("POST", "/v2/models/%6D/infer", 200, None),
    ],
)
def test_what_is_not_there_or_not_allowed(
    port: Port, method: str, path: str, status: int, code: str | None
) -> None:
    body = json.dumps(ROWS).encode() if method == "POST" and "infer" in path else None
    got, headers, content = port.ask(method, path, body, x_request_id="mine")
    assert (got, headers["x-request-id"]) == (status, "mine")
    told = json.loads(content)
    if code is not None:
        assert (told["code"], told["request_id"]) == (code, "mine")
    if got == 405:
        assert headers["allow"] in ("POST", "GET, HEAD")


def test_a_model_that_fails_is_a_500_told_by_request_id(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(columns: object) -> None:
        raise ZeroDivisionError("inside")

    counters = Counters()
    broken = LiveModel(
        everything_to("m", 1), {1: live_version(1, Adding(before=fail), counters=counters)}, {}
    )
    port = serve(plane(broken, counters=counters))
    status, headers, told = port.infer(ROWS, x_request_id="r9")
    assert (status, told["code"], headers["x-request-id"]) == (500, "model_failed", "r9")
    assert any("r9" in str(vars(record)) for record in caplog.records)
    failed = [
        v
        for (name, labels), v in counters.totals().items()
        if name == "fairway_requests_total" and ("code", "model_failed") in labels
    ]
    assert failed == [1.0]


def test_an_unexpected_failure_tells_nothing(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    port = serve(plane())
    port.app.plane.validate = None  # type: ignore[assignment,method-assign]
    status, _, told = port.infer(ROWS)
    assert (status, told["code"]) == (500, "internal_error")
    assert "NoneType" not in told["error"]
    assert "NoneType" in caplog.text


def slow(gate: threading.Event, entered: threading.Semaphore | None = None) -> LiveModel:
    """A model known to be slow, which answers once the gate is open."""

    def wait(columns: object) -> None:
        if entered is not None:
            entered.release()
        assert gate.wait(20)

    version = live_version(1, Adding(before=wait))
    for rows in (1, 2, 4):
        version.cost.learn(rows, 1.0)
    return LiveModel(everything_to("m", 1), {1: version}, {})


def test_slow_models_leave_the_port_free(serve: Serve) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)
    port = serve(
        plane(
            slow(gate, entered),
            inline_seconds=0.01,
            settings=Settings(models={"m": ModelSettings(threads=3)}),
        )
    )
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(port.infer(ROWS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert entered.acquire(timeout=20)
    assert port.ask("GET", "/v2/health/live")[0] == 200
    gate.set()
    for thread in threads:
        thread.join()
    assert [status for status, _, _ in answers] == [200] * 3


def test_more_than_the_queue_holds_is_a_503_to_try_again(serve: Serve) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)
    port = serve(
        plane(
            slow(gate, entered),
            inline_seconds=0.01,
            settings=Settings(models={"m": ModelSettings(queue=1, threads=1)}),
        )
    )
    first, second = (threading.Thread(target=port.infer, args=(ROWS,)) for _ in range(2))
    first.start()
    assert entered.acquire(timeout=20)
    second.start()
    while b'fairway_queue_requests{model="m",version="1"} 1.0' not in port.ask("GET", "/metrics")[2]:
        time.sleep(0.01)
    status, headers, told = port.infer(ROWS)
    assert (status, told["code"], headers["retry-after"]) == (503, "overloaded", "1")
    gate.set()
    first.join()
    second.join()
    assert port.infer(ROWS)[0] == 200


def test_a_large_body_takes_the_long_way_to_the_same_answer(serve: Serve) -> None:
    kept = Kept()
    port = serve(plane(recorder=kept))
    rows = 20_000
    body = {
        "inputs": [{"name": "x", "shape": [rows, 2], "datatype": "FP64", "data": [1.25] * (2 * rows)}],
        "id": "big",
    }
    status, _, told = port.infer(body, x_request_id="large")
    assert (status, told["id"], told["outputs"][0]["data"][-1]) == (200, "big", 2.5)
    assert [p.request_ids for p in kept.predictions] == [["large"]]


@pytest.mark.parametrize("size", [2_000, 300_000])
def test_over_the_limit_is_a_413_that_names_it(serve: Serve, size: int) -> None:
    port = serve(plane(), limits=LimitSettings(body_bytes=1000))
    status, _, told = port.infer(b" " * size)
    assert (status, told["code"]) == (413, "payload_too_large")
    assert "the limit is 1000 (limits.body_bytes)" in told["error"]
    assert port.infer(ROWS)[0] == 200


def test_safe_errors_name_nothing(serve: Serve) -> None:
    port = serve(plane(), serving=ServingSettings(errors="safe"), limits=LimitSettings(body_bytes=1000))
    answers = [
        port.infer({"instances": [["secret", 2]]}),
        port.infer(ROWS, "/v2/models/secret/infer"),
        port.infer(ROWS, "/v2/models/m/versions/secret/infer"),
        port.infer(b" " * 2000),
        port.infer(b"secret", content_type="secret/secret"),
    ]
    for _, _, told in answers:
        assert set(told) == {"error", "code", "request_id"}
        assert not {"secret", "1000", "sum", " a ", "champion"} & set(told["error"].split())
        assert "secret" not in told["error"]
    assert [status for status, _, _ in answers] == [400, 404, 404, 413, 415]


def test_metrics_of_one_process(port: Port, tmp_path: Path) -> None:
    port.infer(ROWS)
    status, headers, body = port.ask("GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"fairway" in body
