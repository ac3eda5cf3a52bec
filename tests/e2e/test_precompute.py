"""`fairway precompute` as people run it, and killed at any moment: readers keep the old answers, a resumed run ends in
the same store as one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import fairway
from fairway.batch.precompute import Mark
from fairway.core.settings import ModelSettings, Settings
from fairway.inference.entries import decode_entry
from fairway.inference.freshness import Source
from fairway.inference.precomputed import open_precomputed
from fairway.stores.answers import AnswerStore, open_answers
from fairway.stores.counters import Counters
from tests.services import Redis

pytestmark = pytest.mark.e2e

ROWS = 150_000
KILLED_AT = (0, 1, 50, 55, 80, 120)
"""Rejected rows, of 150, after which a run is killed within 30 ms: one row in a thousand is rejected."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with `risk:1` live, and the files old.parquet, new.parquet and few.csv beside it."""
    folder = tmp_path_factory.mktemp("hybrid")
    chance = np.random.default_rng(7)
    train = pd.DataFrame(chance.normal(size=(400, 4)), columns=["a", "b", "c", "d"])
    model = LogisticRegression().fit(train, (train.a + train.b > 0).astype(int))
    fairway.deploy(
        model,
        data=train.assign(y=(train.a + train.b > 0).astype(int)),
        target="y",
        name="risk",
        home=folder / "home",
    )
    for name, count, seed in (("old", 2000, 1), ("new", ROWS, 2)):
        rows = pd.DataFrame(np.random.default_rng(seed).normal(size=(count, 4)), columns=list("abcd"))
        rows.insert(0, "customer_id", [f"c{n}" for n in range(count)])
        rows.loc[rows.index % 1000 == 17, "b"] = np.nan
        rows.to_parquet(folder / f"{name}.parquet", index=False, row_group_size=20_000)
    rows.head(20).to_csv(folder / "few.csv", index=False)
    return folder


def command(home: Path, file: str, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "fairway.cli.main", "precompute", "risk", str(home / file)),
        *("--key", "customer_id", "--home", str(home / "home"), "--json", *options),
    ]


def run(home: Path, file: str, *options: str, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        command(home, file, *options), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == code, done.stderr
    told: dict[str, Any] = json.loads(done.stdout if code == 0 else done.stderr)
    return told


def contents(store: AnswerStore) -> list[tuple[bytes, list[float]] | None]:
    """Features and probabilities of every customer, without the time they were computed at."""
    found: list[tuple[bytes, list[float]] | None] = []
    for one in store.get_many([f"c{n}".encode() for n in range(0, ROWS, 7)]):
        if one is None:
            found.append(None)
        else:
            entry = decode_entry(one.entry, one.generation.layout)
            found.append((entry.features, entry.outputs["probabilities"].tolist()))
    return found


@pytest.mark.parametrize("backend", ["lmdb", "redis"])
def test_a_run_killed_at_any_moment_is_resumed_to_the_same_store(
    home: Path, backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def place(name: str) -> str:
        if backend == "lmdb":
            return f"lmdb://{tmp_path}/{name}"
        server: Redis = request.getfixturevalue("redis_server")
        return server.url.replace("/0", f"/{len(name)}")

    def store(name: str) -> AnswerStore:
        return open_answers(place(name), "risk", home=tmp_path, timeout_seconds=5.0)

    killed, whole = store("killed"), store("uninterrupted")
    first = run(home, "old.parquet", "--store", place("killed"))
    assert (first["rows"], first["keys"], first["rejected"]) == (2000, 1998, 2)
    before = contents(killed)
    run(home, "new.parquet", "--store", place("uninterrupted"))
    expected = contents(whole)
    chance = random.Random(5)
    stopped, reached = 0, list[int]()
    rejects = home / "home" / "precompute" / "risk.rejects.jsonl"
    for lines in KILLED_AT:
        start = rejects.stat().st_mtime_ns
        child = subprocess.Popen(
            command(home, "new.parquet", "--store", place("killed"), "--resume"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while child.poll() is None and (
            rejects.stat().st_mtime_ns == start or rejects.read_bytes().count(b"\n") < lines
        ):
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.03))
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            stopped += 1
        child.wait()
        seen = contents(killed)
        if child.returncode == 0 or seen == expected:  # it was done, the kill came after it had published
            break
        assert seen == before
        left = killed.resume()
        if left is not None and left.mark:
            reached.append(msgspec.msgpack.decode(left.mark, type=Mark).rows)
        if left is not None:
            left.close()
    assert stopped
    assert reached == sorted(reached)
    assert reached
    run(home, "new.parquet", "--store", place("killed"), "--resume")
    assert contents(killed) == expected
    assert expected.count(None) == sum(n % 1000 == 17 for n in range(0, ROWS, 7))
    killed.close()
    whole.close()


def test_a_worker_finds_what_was_precomputed(home: Path) -> None:
    done = run(home, "few.csv", "--ttl", "90m")
    assert done["ttl_seconds"] == pytest.approx(5400)
    settings = Settings(home=str(home / "home"), models={"risk": ModelSettings(hybrid_key="customer_id")})
    held = open_precomputed(settings, "risk", Counters())
    assert held is not None
    rows = pd.read_csv(home / "few.csv")
    with fairway.load("risk", home=home / "home", record=False) as model:
        live = model._plane.table["risk"].primary
        answered = 0
        for row in rows.to_dict("records"):
            if np.isnan(row["b"]):
                continue
            columns = live.validate({name: [row[name]] for name in "abcd"})
            found = held.find([row["customer_id"].encode()], live, columns)
            assert found.source is Source.precomputed
            expected = live.run(columns)
            assert found.outputs is not None
            assert {n: v.tobytes() for n, v in found.outputs.items() if v.dtype.kind != "O"} == {
                n: v.tobytes() for n, v in expected.items() if v.dtype.kind != "O"
            }
            answered += 1
            other = live.validate({name: [row[name] + (name == "a")] for name in "abcd"})
            assert held.find([row["customer_id"].encode()], live, other).source is Source.live
        assert answered == done["keys"]
    held.close()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--ttl", "soon"], 4, "is not a time"),
        (["--ttl", "2001-01-01"], 4, "is over already"),
        (["--store", "ftp://x"], 1, "no store of precomputed answers"),
        (["--store", "redis://127.0.0.1:1"], 7, "does not answer"),
        (["--key", "nobody"], 4, "nobody"),
    ],
)
def test_what_cannot_be_is_told(home: Path, options: list[str], code: int, message: str) -> None:
    assert message in run(home, "few.csv", *options, code=code)["error"]


def test_files_that_are_none_are_told(home: Path, tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    assert name in run(home, f"{name}.csv", code=3)["error"]
    (home / "empty.csv").write_text("customer_id,a,b,c,d\n")
    assert "Nothing is published" in run(home, "empty.csv", code=4)["error"]
    (home / "other.csv").write_text("customer_id,a,b\n1,2,3\n")
    assert "c: missing" in run(home, "other.csv", code=4)["error"]
    (home / "cut.parquet").write_bytes((home / "old.parquet").read_bytes()[:5000])
    assert "cannot be read" in run(home, "cut.parquet", code=4)["error"]
