"""`fairway bench` as typed: what it prints, writes and ends with."""

import json
from pathlib import Path

import pytest

from fairway.cli.main import main
from tests.unit.bench.conftest import Stub
from tests.unit.bench.conftest import stub as stub

QUICK = ["--seconds", "0.3", "--warmup", "0", "--connections", "2"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments])
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


@pytest.fixture
def model(stub: Stub) -> Stub:
    stub.describe("m", [{"name": "a", "datatype": "FP64", "shape": [-1]}])
    stub.pages["/v2/repository/index"] = (200, b'[{"name": "m"}]')
    return stub


def test_an_open_loop_for_people(model: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    code, out, _ = run(capsys, model.url, *QUICK, "--rate", "50", "--rows", "3", "--html", str(page))
    assert code == 0
    assert "open loop, 50/s fixed, 2 connections, 0.3 s after 0 s of warm-up; 3 rows, " in out
    assert "rate     50.0/s wanted, " in out
    assert "answers  15 ok, no errors" in out
    for name in ("p50", "p90", "p99", "p99.9", "max", "due to answered", "sent to answered"):
        assert name in out
    assert "latency by percentile" in out
    assert page.read_text().startswith("<!doctype html>")


def test_a_closed_loop_for_programs(model: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, model.url, *QUICK, "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["loop"], report["wanted_rate"], report["arrivals"]) == ("closed", None, None)
    assert report["ok"] == report["requests"] > 0
    assert report["latency"]["p50"] <= report["latency"]["p99"] <= report["latency"]["max"]
    assert "Closed loop" in report["notes"][0]


def test_keys_and_headers_go_with_every_request(model: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, model.url, *QUICK, "--rate", "20", "--key", "fw_secret", "--header", "X-Fairway-Key: u1")
    assert len(model.asked) > 6
    for _, _, headers, _ in model.asked:
        told = {name.lower(): value for name, value in headers.items()}
        assert told["authorization"] == "Bearer fw_secret"
        assert told["x-fairway-key"] == "u1"


def test_a_key_stays_out_of_the_command_line(
    model: Stub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRWAY_KEY", "fw_hidden")
    _, out, _ = run(capsys, model.url, *QUICK, "--json")
    assert all("fw_hidden" in str(headers) for _, _, headers, _ in model.asked)
    assert "fw_hidden" not in out


def test_failures_are_told(model: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    model.infer = lambda number: (200, b"{}") if number < 5 else (503, b"busy")
    code, out, _ = run(capsys, model.url, *QUICK, "--rate", "50")
    assert code == 0
    assert "answers  4 ok, 11 503" in out
    assert "warning: 11 of 15 requests failed" in out
    assert "warning: Saturated" in out


def test_a_run_in_which_nothing_succeeds_is_a_failure(
    model: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    model.infer = lambda number: (200, b"{}") if number == 0 else (500, b"")
    code, out, _ = run(capsys, model.url, *QUICK, "--rate", "50")
    assert code == 1
    assert "answers  0 ok, 15 500" in out


@pytest.mark.parametrize(
    ("arguments", "expected", "says"),
    [
        (["--header", "nonsense"], 4, "NAME:VALUE"),
        (["--header", "a: b\nc: d"], 4, "NAME:VALUE"),
        (["--processes", "3"], 4, "cannot be shared by 3 processes"),
        (["--model", "nobody"], 3, "answered 404"),
        (["--rate", "0"], 2, "--rate"),
        (["--arrivals", "sometimes"], 2, "--arrivals"),
        (["--html", "/nowhere/at/all.html"], 7, "cannot be written"),
    ],
)
def test_wrong_usage(
    model: Stub, arguments: list[str], expected: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, model.url, *QUICK, *arguments)
    assert code == expected
    assert says in err


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "http://127.0.0.1:1", "--model", "m", *QUICK)
    assert code == 7
    assert "Is the server running?" in err
