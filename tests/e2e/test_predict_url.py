"""`fairway predict --url` against a running server."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.servers import FAIRWAY, numeric_data, numeric_model, serving

pytestmark = pytest.mark.e2e


def predict(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FAIRWAY, "predict", *arguments, "--json"], capture_output=True, text=True, timeout=60, check=False
    )


def test_files_are_predicted_by_a_server_and_errors_come_back_whole(home: Path, tmp_path: Path) -> None:
    frame = numeric_data(20)[["a", "b", "c"]]
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.assign(b="x").to_csv(tmp_path / "bad.csv", index=False)
    expected = numeric_model(numeric_data()).predict(frame)
    with serving(home, "line") as running:
        url = f"http://{running.address}"
        for model in ("line", "line@champion", "line:1"):
            for name in ("rows.csv", "rows.parquet"):
                done = predict(model, str(tmp_path / name), "--url", url)
                assert done.returncode == 0, done.stderr
                np.testing.assert_allclose(
                    np.ravel(json.loads(done.stdout)["prediction"]), expected, atol=1e-4
                )
        bad = predict("line", str(tmp_path / "bad.csv"), "--url", url)
        assert bad.returncode == 4
        assert json.loads(bad.stderr)["problems"][0]["field"] == "b"
        assert predict("nobody", str(tmp_path / "rows.csv"), "--url", url).returncode == 3
        nothing = predict("line", str(tmp_path / "rows.csv"), "--url", f"{url}/elsewhere")
        assert nothing.returncode == 3
        assert json.loads(nothing.stderr)["error"]
