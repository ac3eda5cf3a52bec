"""`fairway stream`: changes of one measure, told as rows come."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairway.cli.main import main


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    random = np.random.default_rng(1)
    values = np.concatenate([random.normal(0.5, 0.1, 1000), random.normal(0.9, 0.1, 500)])
    return pd.DataFrame({"row": range(1500), "output.score": values, "calm": 0.5, "name": "a"})


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["stream", *arguments])
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_change_is_told_of_rows_that_come_and_of_a_file(
    scores: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores.to_parquet(tmp_path / "scores.parquet")
    piped(monkeypatch, b"".join(json.dumps(row).encode() + b"\n" for row in scores.to_dict("records")))
    told = [
        run(capsys, "output.score", "--json"),
        run(capsys, "output.score", str(tmp_path / "scores.parquet"), "--json"),
    ]
    assert told[0] == told[1]
    code, out, _ = told[0]
    [change] = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert 1000 <= change["row"] < 1100
    code, out, _ = run(capsys, "output.score", str(tmp_path / "scores.parquet"))
    assert code == 3
    assert out.endswith("1 change in 1,500 values\n")
    assert run(capsys, "calm", str(tmp_path / "scores.parquet"))[0] == 0


@pytest.mark.parametrize(
    "detector", ["page-hinkley --option threshold=10", "kswin --option alpha=1e-5 --option seed=1"]
)
def test_detectors_and_their_options(
    detector: str, scores: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores.to_csv(tmp_path / "scores.csv", index=False)
    code, out, _ = run(
        capsys, "output.score", str(tmp_path / "scores.csv"), "--detector", *detector.split(), "--json"
    )
    assert code == 3
    assert 1000 <= json.loads(out.splitlines()[0])["row"] < 1100


def test_rows_without_a_number_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, b'{"x": 1}\n{"x": null}\n{}\n{"x": "a"}\n{"x": [1]}\n{"x": true}\n')
    assert run(capsys, "x")[:2] == (0, "0 changes in 2 values\n")


@pytest.mark.parametrize(
    ("arguments", "content", "said"),
    [
        (["x"], b"", "no row has a number"),
        (["x"], b'{"x": 1}\n[1]\n', "line 2 is no JSON object"),
        (["x"], b"\xff\n", "line 1 is no JSON object"),
        (["x", "nothing.csv"], b"", "there is no file nothing.csv"),
        (["x", "--detector", "nope"], b"", "there are: adwin"),
        (["x", "--option", "delta"], b"", "is not NAME=NUMBER"),
        (["x", "--option", "nope=1"], b"", "cannot be set up"),
    ],
)
def test_what_cannot_be_is_told(
    arguments: list[str],
    content: bytes,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    piped(monkeypatch, content)
    code, _, err = run(capsys, *arguments)
    assert (code, said in err) == (4, True), err


def test_a_file_without_the_column_names_those_it_has(
    scores: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores.to_parquet(tmp_path / "scores.parquet")
    code, _, err = run(capsys, "score", str(tmp_path / "scores.parquet"))
    assert code == 4
    assert "it has: row, output.score, calm, name" in err
    assert run(capsys, "name", str(tmp_path / "scores.parquet"))[0] == 4
