"""`fairway bench` and our own server, as users start them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.servers import FAIRWAY, numeric_data, serving

pytestmark = pytest.mark.e2e


def bench(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report."""
    done = subprocess.run(
        [FAIRWAY, "bench", *arguments, "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_rows_of_a_file_over_both_loops(home: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    numeric_data(40)[["a", "b", "c"]].to_csv(rows, index=False)
    with serving(home, "line") as server:
        before = server.metric("fairway_requests_total")
        code, opened = bench(
            f"http://{server.address}",
            "--data",
            str(rows),
            "--rate",
            "50",
            "--seconds",
            "1",
            "--warmup",
            "0.2",
        )
        assert code == 0
        assert (opened["ok"], opened["errors"], opened["rows"]) == (50, {}, 1)
        assert opened["latency"]["p50"] > 0
        assert opened["latency"]["p50"] >= opened["service"]["p50"] * 0.99
        assert server.metric("fairway_requests_total") - before == 50 + 10 + 1  # warm-up and trial included
        code, closed = bench(
            f"http://{server.address}/v2/models/line", "--data", str(rows), "--rows", "20",
            "--seconds", "0.5", "--warmup", "0.1", "--processes", "2", "--connections", "4",
        )  # fmt: skip
        assert code == 0
        assert closed["ok"] == closed["requests"] > 0
        assert (closed["rows"], closed["processes"], closed["errors"]) == (20, 2, {})


def test_another_protocol_with_a_body_of_its_own(home: Path, tmp_path: Path) -> None:
    body = tmp_path / "predict.json"
    body.write_text('{"instances": [[0.1, 0.2, 0.3]]}')
    with serving(home, "line") as server:
        code, report = bench(
            f"http://{server.address}/v1/models/line:predict", "--body", str(body),
            "--rate", "40", "--seconds", "0.5", "--warmup", "0",
        )  # fmt: skip
    assert (code, report["ok"], report["errors"]) == (0, 20, {})


def test_the_same_over_grpc_and_with_binary_tensors(home: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    numeric_data(40)[["c", "a", "b"]].to_parquet(rows)
    quick = ("--data", str(rows), "--rows", "8", "--rate", "40", "--seconds", "0.5", "--warmup", "0")
    with serving(home, "line") as server:
        for url, options in (
            (f"grpc://{server.grpc}/line", ()),
            (f"http://{server.address}/v2/models/line", ("--binary",)),
        ):
            code, report = bench(url, *quick, *options)
            assert (code, report["ok"], report["errors"], report["rows"]) == (0, 20, {}, 8)


def test_the_models_own_example_is_found_and_fits_its_contract(home: Path) -> None:
    """`shop` has texts, times and nulls: made-up values would be refused."""
    quick = ("--rate", "40", "--seconds", "0.5", "--warmup", "0")
    with serving(home, "shop") as server:
        for options, rows in (((), 1), (("--rows", "7"), 7)):
            code, report = bench(f"http://{server.address}", *quick, *options)
            assert (code, report["ok"], report["errors"], report["rows"]) == (0, 20, {}, rows)
            assert report["body"] == "the model's example, V2 JSON"
