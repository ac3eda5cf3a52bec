"""What `fairway batch run` prints is for programs too: nothing of anybody else's is among it."""

import json
from pathlib import Path
from typing import Any

import pytest

from fairway.batch.report import Report
from fairway.batch.run import Progress
from fairway.cli import batch
from fairway.cli.main import main


def _noisy(*arguments: Any, tell: Any, **options: Any) -> Report:
    print("(raylet) A worker died or was killed while executing a task")
    tell(Progress(event="progress", rows=3, rejects=0, rows_now=3, seconds=1.0))
    return Report(
        run="m-1", model="m", version=1, digest="", state="finished", reason="", input="in", output="out", rejects="",
        rows=3, scored=3, rejected=0, files=1, failed_files=(), parts=1, bytes=9, checksum="", seconds=1.0,
        rows_per_second=3.0, engine="ray, 2 slots", rejects_by_reason={}, broken_rules={}, columns=(),
    )  # fmt: skip


@pytest.mark.parametrize("form", ["--json", ""])
def test_what_an_engine_prints_goes_to_standard_error(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(batch, "run_batch", _noisy)
    words = ["batch", "run", "m", "in.csv", "out", "--engine", "ray", "--home", str(tmp_path), form]
    with pytest.raises(SystemExit) as ended:
        main([word for word in words if word])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert "(raylet)" in said.err
    assert "(raylet)" not in said.out
    if form:
        events = [json.loads(line) for line in said.out.splitlines()]
        assert [event["event"] for event in events] == ["progress", "report"]
    else:
        assert "out" in said.out
