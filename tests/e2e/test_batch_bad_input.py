"""Files that cannot be read, stores that are away: each a clear message, nothing lost."""

import gzip
import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from fairway.app.batch import resume, run_batch
from fairway.app.batch_runs import list_runs
from fairway.batch.run import Progress
from fairway.cli.predict import app
from fairway.core.errors import InvalidInput, Unavailable
from tests.e2e.servers import numeric_data, serving

pytestmark = pytest.mark.e2e


def lines(rows: int = 50) -> pd.DataFrame:
    frame = numeric_data(rows)[["a", "b", "c"]]
    frame.insert(0, "id", range(rows))
    return frame


def test_of_many_files_the_bad_ones_are_named_and_the_others_scored(home_copy: Path, tmp_path: Path) -> None:
    folder, frame = tmp_path / "in", lines()
    folder.mkdir()
    text = frame.to_csv(index=False)
    packed = gzip.compress(text.encode() * 50)
    parquet = tmp_path / "good.parquet"
    frame.to_parquet(parquet)
    files: dict[str, bytes] = {
        "a-good.csv": text.encode(),
        "b-cut-short.csv.gz": packed[: len(packed) // 2],
        "c-damaged.parquet": parquet.read_bytes()[:-20] + bytes(20),
        "d-header-only.csv": b"id,a,b,c\n",
        "e-empty.csv": b"",
        "f-latin-1.csv": text.replace("id,", "größe,id,").replace("\n", "\n,").encode("latin-1"),
        "g-other-columns.csv": b"id,a,b\n1,2,3\n",
        "h-not-json.jsonl": b"\x00\xff\n[1]\n",
        "i-no-arrow.arrow": b"ARROW1 and so on",
        "j-mixed.csv": text.encode() + "7,1,2,ü\n".encode("latin-1") + b"8,1,2,3\n",
        "k-quoted.csv": b'id,a,b,c\n"1","0.5","1","2"\n2,"1\n",1,2\n3,1,1,1\n',
        "l-twice.csv": b"id,a,b,c,a\n1,2,3,4,5\n",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    report = run_batch("line", folder, tmp_path / "out", home=home_copy)
    why = {Path(path).name: reason for path, reason in report.failed_files}
    expected = {
        "b-cut-short.csv.gz": "cut short",
        "c-damaged.parquet": "cannot be read as parquet",
        "e-empty.csv": "empty",
        "f-latin-1.csv": "--encoding|not UTF-8",
        "g-other-columns.csv": "c: missing",
        "i-no-arrow.arrow": "cannot be read as arrow",
        "l-twice.csv": "repeat: a",
    }
    assert set(why) == set(expected), why
    for name, part in expected.items():
        assert any(each in why[name] for each in part.split("|")), (name, why[name])
    rejects = [json.loads(line) for line in (tmp_path / "out" / "_rejects.jsonl").read_text().splitlines()]
    rows = {(Path(r["file"]).name, r["row"]) for r in rejects}
    assert {("h-not-json.jsonl", 0), ("h-not-json.jsonl", 1), ("j-mixed.csv", 50)} <= rows
    assert report.rows == report.scored + report.rejected
    assert not [p for p in (tmp_path / "out").rglob("*") if p.name.endswith(".tmp")]
    for name in expected:  # mended, they are tried again from where they failed
        (folder / name).unlink()
    run = report.run
    again = resume(run, home=home_copy)
    assert {Path(path).name for path, _ in again.failed_files} == set(expected)
    assert "not there any more" in again.failed_files[0][1]
    assert again.scored == report.scored


def test_a_column_of_another_type_in_a_later_file(home_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    lines().to_parquet(tmp_path / "in" / "1.parquet")
    lines().assign(a="word").to_parquet(tmp_path / "in" / "2.parquet")
    lines().assign(a=lambda f: f["a"].astype(str)).to_parquet(tmp_path / "in" / "3.parquet")
    lines().assign(id=lambda f: f["id"].astype(str) + "x").to_parquet(tmp_path / "in" / "4.parquet")
    report = run_batch("line", tmp_path / "in", tmp_path / "out", keep=("id",), home=home_copy)
    assert report.rows == report.scored + report.rejected
    assert report.scored >= 50
    said = [*report.rejects_by_reason, *(reason for _, reason in report.failed_files)]
    assert any("expected a number" in text for text in said), said
    assert any("another type" in text or "other types" in text for text in said), said


def test_a_store_that_is_away(home_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and in mid-run for the input and for the output: said, and gone on with when it is back."""
    import s3fs
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"endpoint_url": f"http://127.0.0.1:{port}", "key": "test", "secret": "test"}
    (home_copy / "fairway.toml").write_text(
        "[batch.storage.s3]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in options.items())
    )
    lines(1000).to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(Unavailable, match="does not answer"):
        run_batch("line", "s3://there/in.csv", tmp_path / "o", home=home_copy)
    assert list_runs(home_copy) == []

    servers: list[Any] = []

    def start() -> None:
        servers.append(ThreadedMotoServer("127.0.0.1", port, verbose=False))
        servers[-1].start()

    def stop(progress: Progress) -> None:
        if progress.event == "progress" and progress.rows_now >= 200 and len(servers) == 1:
            servers.append(servers[0])
            servers[0].stop()

    start()
    try:
        store = s3fs.S3FileSystem(**options)
        store.mkdir("there")
        store.put_file(str(tmp_path / "in.csv"), "there/in.csv")
        whole = run_batch("line", tmp_path / "in.csv", tmp_path / "whole", rows_per_file=100, home=home_copy)
        with pytest.raises(Unavailable, match="does not answer"):
            run_batch(
                "line", tmp_path / "in.csv", "s3://there/out/", rows_per_file=100, home=home_copy, tell=stop
            )
        start()
        report = run_batch("line", tmp_path / "in.csv", "s3://there/out/", rows_per_file=100, home=home_copy)
        assert (report.state, report.checksum) == ("finished", whole.checksum)
        s3fs.S3FileSystem.clear_instance_cache()
        names = s3fs.S3FileSystem(**options).find("there/out")
        assert len([name for name in names if "part-" in name]) == whole.parts
    finally:
        servers[-1].stop()


# fairway predict --url


def test_a_large_csv_is_sent_in_pieces(home: Path, tmp_path: Path) -> None:
    rows = 9_000
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    bad = frame.astype(object)
    bad.loc[7_000, "b"] = "x"
    bad.to_csv(tmp_path / "bad.csv", index=False)
    (tmp_path / "none.csv").write_text("a,b,c\n")
    with serving(home, "line") as running:
        url = ["--url", f"http://{running.address}"]
        done = CliRunner().invoke(app, ["line", "-", *url], input=(tmp_path / "rows.csv").read_bytes())
        failed = CliRunner().invoke(app, ["line", str(tmp_path / "bad.csv"), *url])
        nothing = CliRunner().invoke(app, ["line", str(tmp_path / "none.csv"), *url])
    header, *values = done.stdout.splitlines()
    assert header == "prediction"
    run_batch("line", tmp_path / "rows.parquet", tmp_path / "out.parquet", home=home)
    expected = pq.read_table(tmp_path / "out.parquet").column("prediction").to_pylist()
    assert np.array(values, np.float32).tolist() == expected
    assert isinstance(failed.exception, InvalidInput)
    assert [(problem.row, problem.field) for problem in failed.exception.problems] == [(7_000, "b")]
    assert nothing.exception is None or isinstance(nothing.exception, InvalidInput)
