"""Everything that is wrong with a request, a bundle or a machine: none of it is a 500, none of it ends a worker."""

import hashlib
import json
import resource
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fairway
from fairway.core.contract import Action, Contract
from tests.e2e.servers import (
    FAIRWAY,
    MIXED,
    Server,
    log_of,
    mixed_model,
    output,
    refused,
    serving,
    until,
    visits,
)

pytestmark = pytest.mark.e2e
SHOP = "/v2/models/strict/infer"
LIMIT = 200_000
ROW = {"amount": 10.5, "items": 2, "member": True, "country": "DE", "at": "2026-01-31T12:00:00Z"}
SETTINGS = f"[limits]\nbody_bytes = {LIMIT}\nrows = 1000\n"


def strict(contract: Contract) -> Contract:
    """The contract with rules that refuse: out of range, unseen, not known."""
    replace = msgspec.structs.replace
    inputs = tuple(
        replace(
            f,
            rules=replace(
                f.rules,
                on_range=Action.reject,
                on_category=Action.reject,
                on_null=Action.reject if f.name == "country" else f.rules.on_null,
            ),
        )
        for f in contract
    )
    return replace(contract, inputs=inputs, extra_fields="reject")


@pytest.fixture(scope="module")
def strict_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`strict`: the mixed model under a contract that refuses what is out of range, unseen or unknown."""
    home = tmp_path_factory.mktemp("strict") / "home"
    frame = visits(400)
    sample, model = frame[[*MIXED, "bought"]], mixed_model(frame)
    inferred = fairway.package(model, sample, target="bought", out=home.parent / "bundle").contract
    fairway.deploy(model, sample, target="bought", name="strict", home=home, contract=strict(inferred))
    (home / "fairway.toml").write_text(SETTINGS)
    return home


@pytest.fixture(scope="module")
def server(strict_home: Path) -> Iterator[Server]:
    with serving(strict_home) as running:
        yield running


@pytest.fixture(scope="module")
def worker(server: Server) -> int:
    [pid] = server.workers()
    return pid


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each request: the same worker, and the right answer to a good one."""
    yield
    if "server" in request.fixturenames:
        server, worker = request.getfixturevalue("server"), request.getfixturevalue("worker")
        assert server.workers() == [worker]
        status, _, told = server.post({"instances": [ROW]}, SHOP)
        assert status == 200
        assert output(told, "probabilities").shape == (1, 2)


def row(**changes: Any) -> dict[str, Any]:
    return {"instances": [ROW, {**ROW, **changes}]}


def tensor(name: str, data: Any, shape: list[int], datatype: str) -> dict[str, Any]:
    return {"name": name, "data": data, "shape": shape, "datatype": datatype}


V2 = [
    tensor("amount", [10.5], [1], "FP64"),
    tensor("items", [2], [1], "INT64"),
    tensor("member", [True], [1], "BOOL"),
    tensor("country", ["DE"], [1], "BYTES"),
    tensor("at", ["2026-01-31"], [1], "BYTES"),
]


def test_the_good_requests_are_good(server: Server, worker: int) -> None:
    assert server.post({"inputs": V2}, SHOP)[0] == 200


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (row(amount="a lot"), "amount", "expected a number, got 'a lot'"),
        (row(amount=True), "amount", "expected a number"),
        (row(amount=[1.0]), "amount", "expected a number"),
        (row(items=1.5), "items", "expected a whole number"),
        (row(items=10**30), "items", "does not fit int64"),
        (row(items=2**62), "items", "2**53"),
        (row(member="yes"), "member", "expected true or false"),
        (row(country=5), "country", "expected text, got 5"),
        (row(country=None), "country", "null is not allowed"),
        (row(country="XX"), "country", "'XX' is not one of"),
        (row(amount=1e9), "amount", "outside the allowed range"),
        (row(amount=-5), "amount", "outside the allowed range"),
        (row(at="yesterday"), "at", "expected an ISO 8601 date and time"),
        (row(at=1_700_000_000), "at", "send text such as"),
        (row(at="1999-01-01"), "at", "outside the allowed range"),
        (row(surprise=1), "surprise", "is not a field of this model"),
        ({"instances": [{**ROW, "surprise": 1}]}, "surprise", "is not a field of this model"),
        ({"dataframe_split": {"columns": ["amount"], "data": [[1.5]]}}, "items", "missing"),
        ({"instances": [{k: v for k, v in ROW.items() if k != "at"}]}, "at", "missing"),
        ({"instances": [ROW, {k: v for k, v in ROW.items() if k != "at"}]}, "at", "missing"),
        ({"inputs": V2[:4]}, "at", "missing"),
        (
            {"inputs": [*V2[1:], tensor("amount", [1.5, 2.5], [2], "FP64")]},
            "amount",
            "has 2 rows where others have 1",
        ),
        ({"inputs": [*V2[1:], tensor("amount", [1.5], [2], "FP64")]}, "amount", "needs 2 values, data has 1"),
        ({"inputs": [*V2[1:], tensor("amount", [1.5, 2.5], [1, 2], "FP64")]}, "amount", "got shape [1, 2]"),
        ({"inputs": [*V2[1:], tensor("amount", [[1.5], []], [2, 1], "FP64")]}, "amount", "ragged"),
        ({"inputs": [*V2[1:], tensor("amount", [1.5], [1], "FP99")]}, "amount", "'FP99' is not one of"),
        ({"inputs": [V2[0], *V2[2:], tensor("items", [300], [1], "INT8")]}, "items", "300 does not fit INT8"),
    ],
    ids=range(27),
)
def test_a_field_that_is_wrong_is_named(
    server: Server, worker: int, body: Any, field: str, reason: str
) -> None:
    status, headers, told = server.post(body, SHOP, x_request_id="bad-1")
    assert status == 400
    assert headers["x-request-id"] == told["request_id"] == "bad-1"
    [problem] = [p for p in told["problems"] if p.get("field") == field][:1]
    assert reason in problem["reason"]
    assert told["code"] in ("contract_violation", "malformed_input")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "The body is empty"),
        (b"{", "not a valid request"),
        (b'{"instances": [{]}', "not a valid request"),
        (b"\xff\xfe\x00", "UTF-16"),
        (b'{"instances": [["\xff"]]}', "UTF-8"),
        (b"null", "not a valid request"),
        (b"[]", "not a valid request"),
        (b"{}", "exactly one of inputs"),
        (b'{"instances": [{"amount": NaN}]}', "send null for a missing number"),
        (b'{"instances": [{"amount": Infinity}]}', "no NaN or Infinity"),
        (b'{"inputs": [{"name": "amount", "shape": [1], "datatype": "FP64", "data": [-Infinity]}]}', "no NaN or Infinity"),
        (b'{"instances": [{"amount": 1e999}]}', "out of range"),
        (b'{"instances": []}', "no rows"),
        (b'{"dataframe_records": []}', "no rows"),
        (b'{"dataframe_split": {"columns": ["amount","items","member","country","at"], "data": []}}', "no rows"),
        (b'{"dataframe_split": {"columns": ["amount","items"], "data": [[1, 2], [1]]}}', "do not have 2 values"),
        (b'{"instances": [[1, 2, true, "DE", "2026-01-31"], [1, 2]]}', "do not have 5 values"),
        (b'{"instances": [[1, 2, true, "DE", "2026-01-31"], 5]}', "all objects by field name, or all lists"),
        (b'{"instances": 5}', "instances cannot be read"),
        (b'{"inputs": []}', "inputs is empty"),
        (b'{"instances": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested too deeply"),
        (b'{"instances": [{"amount": ' + b"[" * 50_000 + b"]" * 50_000 + b"}]}", "nested too deeply"),
        (b'{"x": ' + b'{"x":' * 30_000 + b"1" + b"}" * 30_000 + b"}", "nested too deeply"),
        (b'{"inputs": [{"name": "amount", "shape": ' + json.dumps([1] * 70).encode() + b', "datatype": "FP64", "data": [1]}]}', "cannot be read"),
        (json.dumps({"instances": [[1.5, 1, True, "DE", "2026-01-31"]] * 1001}).encode(), "1001 rows in one request; the limit is 1000"),
    ],
    ids=range(25),
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_told_why(server: Server, worker: int, body: bytes, says: str) -> None:
    status, _, told = server.post(body, SHOP)
    assert status == (413 if "limit" in says else 400)
    assert says in told["error"]


@pytest.mark.parametrize(
    "kind", ["text/html", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_a_wrong_content_type_is_a_415(server: Server, worker: int, kind: str) -> None:
    status, _, told = server.post(b"a=1", SHOP, kind)
    assert (status, told["code"]) == (415, "unsupported_content")
    assert "Known are application/json, text/csv" in told["error"]
    assert server.post(b"x", SHOP, "text/csv", content_encoding="br")[0] == 415
    assert server.post(b"x", SHOP, "text/csv", content_encoding="gzip")[0] == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"amount\n1\n",
        b"\xff",
        b'amount,items\n"1,2\n',
        b"amount,amount\n1,2\n",
        b"amount,items,member,country,at\n1,2\n",
        b"amount,items,member,country,at\n",
    ],
)
def test_csv_that_cannot_be_read(server: Server, worker: int, body: bytes) -> None:
    assert server.post(body, SHOP, "text/csv")[0] == 400


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/models/nobody/infer", "model_not_found"),
        ("/v2/models/strict/versions/99/infer", "version_not_found"),
        ("/v2/models/strict/versions/blue/infer", "alias_not_found"),
        ("/v2/models/strict/versions/" + "9" * 5000 + "/infer", "alias_not_found"),
        ("/v2/models/..%2f..%2fetc/infer", "model_not_found"),
    ],
)
def test_what_is_not_there_is_a_404(server: Server, worker: int, path: str, code: str) -> None:
    status, _, told = server.post({"instances": [ROW]}, path)
    assert (status, told["code"]) == (404, code)


@pytest.mark.parametrize("way", ["declared", "chunked", "declared and never sent"])
def test_a_body_over_the_limit_is_a_413_that_names_it(server: Server, worker: int, way: str) -> None:
    host, port = server.address.split(":")
    head = f"POST {SHOP} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        if way == "chunked":
            connection.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
            for _ in range(30):
                connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
            connection.sendall(b"0\r\n\r\n")
        else:
            connection.sendall(
                f"{head}content-length: {10**9 if 'never' in way else LIMIT + 1}\r\n\r\n".encode()
            )
            if way == "declared":
                connection.sendall(b" " * (LIMIT + 1))
            else:
                connection.sendall(b" " * (LIMIT + 100_000))
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    told = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert told["code"] == "payload_too_large"
    assert f"the limit is {LIMIT} (limits.body_bytes)" in told["error"]


def test_refused_fields_are_counted(server: Server, worker: int) -> None:
    before = server.metric("fairway_field_violations_total")
    server.post(row(country="XX"), SHOP)
    assert server.metric("fairway_field_violations_total") == before + 1


def test_safe_errors_leak_neither_fields_values_models_nor_limits(strict_home: Path) -> None:
    with serving(strict_home, environ={"FAIRWAY_SERVING_ERRORS": "safe"}) as running:
        answers = [
            running.post(row(country="SECRET"), SHOP),
            running.post(row(surprise="SECRET"), SHOP),
            running.post(b"{SECRET", SHOP),
            running.post({"instances": [ROW] * 1001}, SHOP),
            running.post(b" " * (LIMIT + 1), SHOP),
            running.post({"instances": [ROW]}, "/v2/models/SECRET/infer"),
            running.post({"instances": [ROW]}, "/v2/models/strict/versions/SECRET/infer"),
            running.post(b"SECRET", SHOP, "SECRET/SECRET"),
        ]
        assert [status for status, _, _ in answers] == [400, 400, 400, 413, 413, 404, 404, 415]
        words = [
            "SECRET",
            "strict",
            "country",
            "surprise",
            "amount",
            "DE",
            "champion",
            str(LIMIT),
            "1000",
            "sum",
        ]
        for _, headers, told in answers:
            assert set(told) == {"error", "code", "request_id"}
            assert not [word for word in words if word in told["error"]]
            assert told["request_id"] == headers["x-request-id"]
        assert running.post({"instances": [ROW]}, SHOP)[0] == 200


# Bundles and registries


def only(home: Path, name: str) -> Path:
    """The unpacked bundle of a model's live version."""
    shown = json.loads(
        subprocess.run(
            [FAIRWAY, "models", "--home", str(home), "--json"], capture_output=True, text=True, check=True
        ).stdout
    )
    assert name in json.dumps(shown)
    details = json.loads(
        subprocess.run(
            [FAIRWAY, "show", name, "--home", str(home), "--json"], capture_output=True, text=True, check=True
        ).stdout
    )
    return home / "bundles" / details["version"]["digest"].removeprefix("sha256:")


def change(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.chmod(0o644)
    changed = {
        "truncated": content[: len(content) // 2],
        "altered": content[:-1] + bytes([content[-1] ^ 1]),
        "emptied": b"",
    }
    path.write_bytes(changed[how])


@pytest.mark.parametrize("how", ["truncated", "altered", "emptied"])
@pytest.mark.parametrize("name", ["engine/model.onnx", "contract.json", "golden.json"])
def test_a_bundle_that_was_changed_is_not_served_and_the_file_is_named(
    home_copy: Path, name: str, how: str
) -> None:
    change(only(home_copy, "line") / name, how)
    code, told = refused(home_copy, "line")
    assert code != 0
    assert name in told["error"]
    assert "corrupt_bundle" in told["error"] + told["code"]


def test_a_file_that_is_gone_is_named(home_copy: Path) -> None:
    (only(home_copy, "line") / "engine" / "model.onnx").unlink()
    assert "engine/model.onnx" in refused(home_copy, "line")[1]["error"]


def resealed(home: Path, name: str, change_text: Any, file: str) -> None:
    """Changes a file of a bundle and its manifest with it, as somebody would who knows how."""
    bundle = only(home, name)
    path, manifest = bundle / file, bundle / "manifest.json"
    for changed in (path, manifest):
        changed.chmod(0o644)
    path.write_text(change_text(path.read_text()))
    sealed = json.loads(manifest.read_text())
    if file != "manifest.json":
        sealed["files"][file] = {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        manifest.write_text(json.dumps(sealed))


def test_a_bundle_from_a_newer_format_is_told_from_a_broken_one(home_copy: Path) -> None:
    resealed(
        home_copy,
        "line",
        lambda text: text.replace('"format":1', '"format":99').replace('"format": 1', '"format": 99'),
        "manifest.json",
    )
    _, told = refused(home_copy, "line")
    assert "newer" in told["error"] or "99" in told["error"]


def test_other_answers_than_when_packaged_are_not_served_and_the_row_is_named(home_copy: Path) -> None:
    def worse(text: str) -> str:
        golden = json.loads(text)
        golden["outputs"]["prediction"][2] += 5.0
        return json.dumps(golden)

    resealed(home_copy, "line", worse, "golden.json")
    _, told = refused(home_copy, "line")
    assert "golden row 2" in told["error"].lower() or "row 2" in told["error"]


def test_a_registry_that_another_process_holds_does_not_stop_serving(home_copy: Path) -> None:
    with serving(home_copy, "line"):
        pass  # has left a snapshot
    (home_copy / "fairway.toml").write_text("[registry]\nlock_timeout_seconds = 0.3\n")
    holder = sqlite3.connect(home_copy / "registry.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with serving(home_copy, "line") as running:
            assert running.post({"instances": [[1.0, 2.0, 3.0]]}, "/v2/models/line/infer")[0] == 200
        command = [FAIRWAY, "alias", "line", "blue", "1", "--home", str(home_copy), "--json"]
        failed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert failed.returncode == 7
        assert json.loads(failed.stderr)["code"] == "registry_unavailable"
    finally:
        holder.close()


def test_a_full_disk_for_the_log_stops_no_prediction(home_copy: Path) -> None:
    """The kernel refuses the log's writes beyond a size, as a full disk does; each lost row is counted."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))

    body = {"instances": [[1.0, 2.0, 3.0]] * 4000}
    with serving(home_copy, "line", limit=small_files) as running:
        workers = running.workers()
        sent = 0
        for _ in range(12):
            assert running.post(body, "/v2/models/line/infer", x_request_id="x" * 100)[0] == 200
            sent += 4000
        until(lambda: running.metric("fairway_log_dropped_rows_total") > 0)
        assert running.workers() == workers
        assert running.post({"instances": [[1.0, 2.0, 3.0]]}, "/v2/models/line/infer")[0] == 200
        until(
            lambda: (
                len(log_of(home_copy, "line")) + running.metric("fairway_log_dropped_rows_total") == sent + 1
            )
        )
        assert "predictions are not being recorded" in running.errors.read_text()


# Where it listens


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_it_does_not_listen_beyond_loopback_without_being_told(home: Path, host: str) -> None:
    code, told = refused(home, "--host", host)
    assert (code, told["code"]) == (1, "insecure_binding")
    assert "--insecure" in told["error"]


def test_told_so_it_does(home: Path) -> None:
    with serving(home, "line", "--host", "0.0.0.0", "--insecure") as running:
        port = running.address.split(":")[1]
        assert (
            Server(running.process, f"127.0.0.1:{port}", running.errors).ask("GET", "/v2/health/ready")[0]
            == 200
        )


def test_models_and_homes_that_are_not_there(home: Path, tmp_path: Path) -> None:
    assert refused(home, "nobody")[0] == 3
    code, told = refused(tmp_path)
    assert code == 3
    assert "Deploy one: fairway deploy" in told["error"]
