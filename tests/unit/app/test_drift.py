"""`fairway.drift` and `fairway drift`: files, frames, models, seasons."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import fairway
from fairway.cli.main import main
from fairway.core.errors import InvalidInput, NotFound
from fairway.core.settings import DriftSettings

QUICK = DriftSettings(resamples=400)


def rows(count: int, seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "age": rng.normal(40, 10, count) + 10 * shift,
        "plan": np.array(rng.choice(["free", "pro"], count).tolist(), object),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drift")
    for name, made in {"reference": rows(1000, 0), "same": rows(300, 1), "moved": rows(300, 2, 0.6)}.items():
        pq.write_table(pa.table(made), folder / f"{name}.parquet")
        pd.DataFrame(made).to_csv(folder / f"{name}.csv", index=False)
    return folder


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("make", [dict, pd.DataFrame, pl.DataFrame, pa.table])
def test_frames_of_every_kind(make) -> None:
    report = fairway.drift(make(rows(1000, 0)), make(rows(300, 2, 0.6)), settings=QUICK)
    assert report.drifted
    assert report.columns[0].name == "age"
    assert report.columns[0].drifted
    assert report.columns[0].effect == pytest.approx(0.6, abs=0.15)
    assert report.columns[0].p_value < 1e-6
    assert not report.columns[1].drifted
    assert not fairway.drift(make(rows(1000, 0)), make(rows(300, 1)), settings=QUICK).drifted


def test_arrays_without_names() -> None:
    rng = np.random.default_rng(0)
    report = fairway.drift(
        rng.standard_normal((500, 2)), rng.standard_normal((200, 2)) + np.array([0, 1]), settings=QUICK
    )
    assert [column.name for column in report.drifted_columns] == ["x1"]


def test_the_exit_code_says_it(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("drift", files / "reference.parquet", files / "same.csv") == 0
    assert "no drift  (300 rows against 1,000, alpha 0.03)" in capsys.readouterr().out
    assert run("drift", files / "reference.csv", files / "moved.parquet") == 3
    out = capsys.readouterr().out
    assert "drifted: age" in out
    assert "DRIFTED" in out


def test_json_for_programs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("drift", files / "reference.parquet", files / "moved.parquet", "--json") == 3
    told = json.loads(capsys.readouterr().out)
    assert told["drifted"] is True
    age = told["columns"][0]
    assert age["name"] == "age"
    assert age["drifted"] is True
    assert {"effect", "p_value", "p_adjusted", "statistic", "test", "effects"} <= set(age)
    assert {"psi", "jensen_shannon", "wasserstein", "ks"} <= set(age["effects"])


def test_wrong_use_is_never_taken_for_drift(
    files: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here = files / "reference.parquet"
    assert run("drift", files / "nope.parquet", here) == 4
    assert run("drift", here, files / "nope.parquet") == 4
    assert run("drift", "nomodel", here, "--home", tmp_path) == 4
    assert run("drift", here, here, "--alpha", 2) == 4
    assert run("drift", here, here, "--kind", "age") == 4
    assert run("drift", here, here, "--kind", "age=nope") == 4
    assert run("drift", here, here, "--kind", "nope=text") == 4
    assert run("drift", here, here, "--columns", "age,nope") == 4
    assert "there is no column nope; there are: age, plan" in capsys.readouterr().err
    assert run("drift", here, here, "--time", "nope") == 4
    assert run("drift", here, here, "--time", "plan") == 4
    assert "not of times" in capsys.readouterr().err


def test_columns_kinds_and_small_windows(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = files / "reference.parquet"
    assert run("drift", here, files / "moved.parquet", "--columns", "plan") == 0
    assert run("drift", here, files / "moved.parquet", "--min-rows", 1000) == 0
    assert "judged from 1000 on" in capsys.readouterr().out
    assert run("drift", here, files / "moved.parquet", "--kind", "plan=text") == 3


def test_like_hours_are_compared() -> None:
    rng = np.random.default_rng(0)
    when = np.datetime64("2026-01-01T00:00:00", "us") + rng.integers(0, 28 * 86_400, 20_000) * np.timedelta64(
        1, "s"
    )
    hour = when.astype("datetime64[h]").astype(int) % 24
    day = {"load": np.sin(hour / 24 * 2 * np.pi) + 0.5 * rng.standard_normal(20_000), "when": when}
    night = {name: values[hour < 6] for name, values in day.items()}
    other = {**night, "load": night["load"] + 0.3}
    assert fairway.drift(day, night, settings=QUICK).drifted
    report = fairway.drift(day, night, time="when", settings=QUICK)
    assert not report.drifted
    assert "Season: day" in report.notes[0]
    assert [column.name for column in report.columns] == ["load"]
    assert fairway.drift(day, other, time="when", settings=QUICK).drifted
    flat = {**day, "load": rng.standard_normal(20_000)}
    assert "no daily or weekly season" in fairway.drift(flat, flat, time="when", settings=QUICK).notes[0]
    text = {**day, "when": np.array(when.astype(str), object)}
    assert not fairway.drift(text, night, time="when", settings=QUICK).drifted


def test_a_models_own_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((2000, 3)), columns=["a", "b", "c"])
    model = LogisticRegression().fit(frame, frame["a"] + rng.standard_normal(2000) > 0)
    fairway.deploy(model, frame, name="scores", home=tmp_path)
    window = pd.DataFrame(rng.standard_normal((500, 3)), columns=["a", "b", "c"])
    assert not fairway.drift("scores", window, home=tmp_path).drifted
    window["b"] += 0.5
    report = fairway.drift("scores:1", window, home=tmp_path)
    assert [column.name for column in report.drifted_columns] == ["b"]
    assert (
        fairway.drift("scores", window[["a", "b"]], home=tmp_path).column("c").status
        == "absent from the current window"
    )
    window.to_parquet(tmp_path / "window.parquet")
    assert run("drift", "scores", tmp_path / "window.parquet", "--home", tmp_path) == 3
    assert not fairway.drift("scores", window, columns=("a",), home=tmp_path).drifted
    with pytest.raises(InvalidInput, match="takes no z"):
        fairway.drift("scores", window, columns=("z",), home=tmp_path)
    with pytest.raises(InvalidInput, match="does not say when its rows were"):
        fairway.drift("scores", window, time="a", home=tmp_path)
    with pytest.raises(InvalidInput, match="no column z; there are: a, b, c"):
        fairway.drift("scores", window, kinds={"z": "number"}, home=tmp_path)
    with pytest.raises(NotFound):
        fairway.drift("scores:7", window, home=tmp_path)


def test_a_models_rows_tell_more_than_its_profile(tmp_path: Path) -> None:
    """Texts and hours, from the rows that the bundle carries. What became of the rows (`label`) is no answer of the model's."""
    rng = np.random.default_rng(0)

    def made(count: int, words: list[str]) -> pd.DataFrame:
        x = rng.standard_normal(count)
        when = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.sort(rng.random(count)) * 14, unit="D")
        night = when.hour.to_numpy() < 6
        return pd.DataFrame(
            {
                "text": [" ".join(rng.choice(words, 8)) for _ in range(count)],
                "load": x + 3.0 * night,
                "when": when,
                "label": x > 0,
            }
        )

    words = ["invoice", "crash", "login", "refund", "quote", "slow"]
    frame = made(3000, words)
    inputs = frame[["text", "load"]]
    model = make_pipeline(
        ColumnTransformer(
            [("text", CountVectorizer(max_features=20), "text"), ("load", "passthrough", ["load"])]
        ),
        LogisticRegression(max_iter=500),
    ).fit(inputs, frame["label"])
    fairway.deploy(model, frame, target="label", time="when", name="tickets", home=tmp_path)
    assert not fairway.drift("tickets", made(600, words), home=tmp_path, settings=QUICK).drifted
    other = fairway.drift("tickets", made(600, [*words, "wallet"]), home=tmp_path, settings=QUICK)
    assert [column.name for column in other.drifted_columns] == ["text"]
    later = made(2000, words)
    night = later[later["when"].dt.hour < 6]
    assert fairway.drift("tickets", night, home=tmp_path, settings=QUICK).column("load").drifted
    alike = fairway.drift("tickets", night, time="when", home=tmp_path, settings=QUICK)
    assert not alike.drifted
    assert "Season: day" in alike.notes[0]
    assert [column.name for column in alike.columns] == ["text", "load"]
