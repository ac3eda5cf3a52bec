"""A function whose numpy is not Fairway's: deployed, served, killed; with a real environment from a package index."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fairway
from fairway.app.library import deploy
from fairway.core.errors import EnvironmentFailed, GoldenMismatch, ModelFailed
from fairway.core.settings import IsolationSettings
from fairway.packaging.bundle import read_bundle
from fairway.runtimes.isolated.environments import Environments
from tests.e2e.servers import FAIRWAY, Server, serving, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

OTHER = "1.26.4" if sys.version_info < (3, 13) else "2.1.0"
SOURCE = """
import os
import time
from pathlib import Path

import numpy as np

WEIGHT = float((Path(__file__).parent / "weight.txt").read_text())


def score(rows: dict):
    amount = rows["amount"]
    if (amount == -1).any():
        os._exit(9)
    if (amount == -2).any():
        time.sleep(600)
    places = np.array([len(text) if text is not None else -1 for text in rows["place"]])
    return {
        "score": np.sqrt(amount * amount) * WEIGHT + places,
        "day": rows["at"].astype("datetime64[D]").astype(np.int64),
        "numpy": np.array([np.__version__] * len(amount)),
        "place": rows["place"],
    }
"""
ROWS = [
    {
        "amount": 0.1 * i,
        "place": None if i % 7 == 0 else "Zürich" if i % 2 else "雲南",
        "at": f"2024-01-{1 + i % 28:02}",
    }
    for i in range(40)
]
assert np.__version__ != OTHER


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("legacy")
    (folder / "predict.py").write_text(SOURCE, encoding="utf-8")
    (folder / "weight.txt").write_text("0.3", encoding="utf-8")
    (folder / "requirements.txt").write_text(f"numpy=={OTHER}\n", encoding="utf-8")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    deployed = deploy(
        f"{folder / 'predict.py'}:score",
        str(folder / "rows.jsonl"),
        name="legacy",
        home=folder / "home",
        files=("weight.txt",),
        requirements=folder / "requirements.txt",
    )
    assert deployed.engine == "isolated:python"
    return folder / "home"


def test_it_answers_with_its_own_numpy_bit_for_bit(home: Path) -> None:
    with fairway.load("legacy", home=home, record=False) as model:
        given = model.predict(ROWS)
        amount = np.array([row["amount"] for row in ROWS])
        places = np.array([-1 if row["place"] is None else len(str(row["place"])) for row in ROWS])
        assert set(given["numpy"]) == {OTHER}
        assert given["score"].tobytes() == (np.sqrt(amount * amount) * 0.3 + places).tobytes()
        assert given["place"].tolist() == [row["place"] for row in ROWS]
        days = np.array([row["at"] for row in ROWS], dtype="datetime64[D]").astype(np.int64)
        assert given["day"].tolist() == days.tolist()


def test_the_bundle_holds_the_lock_and_says_what_it_runs_on(home: Path) -> None:
    (directory,) = (home / "bundles").iterdir()
    bundle = read_bundle(directory)
    assert bundle.environment.packages == {"numpy": OTHER}
    assert bundle.environment.required == ()
    lock = (directory / "environment" / "requirements.lock").read_text()
    assert f"numpy=={OTHER}" in lock
    assert "://" not in lock
    assert "environment/requirements.lock" in bundle.manifest.files
    shown = subprocess.run(
        [FAIRWAY, "show", "legacy", "--home", str(home)], capture_output=True, text=True, check=True
    ).stdout
    assert f"numpy {OTHER}" in shown


def test_a_broken_environment_is_named_and_mended(home: Path) -> None:
    ((digest, made),) = Environments(IsolationSettings(folder=str(home / "environments"))).listed()
    assert made is not None
    (package,) = (home / "environments" / digest).glob("lib/*/site-packages/numpy/__init__.py")
    package.unlink()
    doctor = subprocess.run(
        [FAIRWAY, "doctor", "--home", str(home)], capture_output=True, text=True, check=False
    )
    assert doctor.returncode == 1
    assert f"the environment {digest[:12]} of legacy:1 cannot be used" in doctor.stdout
    fix = f"fairway environments --mend --home {home}"
    assert fix in doctor.stdout
    with pytest.raises((EnvironmentFailed, GoldenMismatch)), fairway.load("legacy", home=home, record=False):
        pass
    subprocess.run([FAIRWAY, *fix.split()[1:]], capture_output=True, check=True)
    assert package.exists()


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    with serving(home) as server:
        yield server


def ask(server: Server, *amounts: float) -> tuple[int, dict[str, object]]:
    rows = [{"amount": amount, "place": "x", "at": "2024-01-01"} for amount in amounts]
    status, _, answer = server.post({"instances": rows}, "/v2/models/legacy/infer")
    return status, answer


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_server_outlives_its_model(server: Server) -> None:
    assert ask(server, 1.0)[0] == 200
    status, answer = ask(server, -1.0)
    assert status == 500
    assert "legacy:1 ended with exit code 9" in str(answer["error"])
    until(lambda: ask(server, 1.0)[0] == 200)
    assert server.process.poll() is None


def test_nothing_is_left_of_a_killed_worker(server: Server) -> None:
    before = set(os.listdir("/dev/shm"))
    assert ask(server, 1.0)[0] == 200
    (worker,) = server.workers()
    processes = children(worker)
    assert len(processes) == 1
    os.kill(worker, signal.SIGKILL)
    until(lambda: all(gone(pid) for pid in processes))
    assert set(os.listdir("/dev/shm")) <= before
    until(lambda: server.workers() not in ([], [worker]))
    until(lambda: ask(server, 1.0)[0] == 200)


def test_a_crash_is_an_error_of_the_model_in_process_too(home: Path) -> None:
    with (
        fairway.load("legacy", home=home, record=False) as model,
        pytest.raises(ModelFailed, match="exit code 9"),
    ):
        model.predict([{"amount": -1.0, "place": "x", "at": "2024-01-01"}])
