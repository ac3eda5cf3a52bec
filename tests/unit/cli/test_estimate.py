"""`fairway estimate` as typed."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fairway.cli.main import main
from tests.unit.monitoring.performance.conftest import binary_window, table_of

COLUMNS = [
    "--proba",
    "p",
    "--prediction",
    "said",
    "--target",
    "label",
    "--chunk",
    "1000",
    "--calibration",
    "smooth",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("estimate")
    windows = {
        "reference": binary_window(4_000, 1, sure=1.6),
        "good": binary_window(1_000, 2, sure=1.6),
        "bad": binary_window(1_000, 3, sure=1.6, shift=-2.0),
    }
    for name, window in windows.items():
        pq.write_table(table_of(window), folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in windows}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["estimate", *arguments])
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def test_for_programs(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, files["reference"], files["bad"], *COLUMNS, "--json")
    report = json.loads(out)
    assert code == 3
    assert [chunk["period"] for chunk in report["chunks"]] == ["reference"] * 4 + ["analysis"]
    last = report["chunks"][-1]
    assert (last["start"], last["end"]) == (0, 1_000)
    assert last["metrics"]["roc_auc"].keys() >= {"value", "lower", "upper", "alert", "estimated"}
    assert last["metrics"]["accuracy"]["alert"]


def test_for_people(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, files["reference"], files["good"], *COLUMNS, "--metrics", "roc_auc")
    assert code == 0
    assert (
        "classification estimated without labels (cbpe, probabilities calibrated: smooth), 95% intervals"
        in out
    )
    assert "all 1 chunks are as usual" in out
    code, out, _ = run(capsys, files["reference"], files["bad"], *COLUMNS, "--metrics", "accuracy")
    assert code == 3
    assert "1 of 1 chunks are outside what is usual (marked !)" in out


def test_what_is_wrong_is_told(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, files["reference"], "nowhere.parquet", *COLUMNS)
    assert code == 4
    assert "there is no file nowhere.parquet" in err
