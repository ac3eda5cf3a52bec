"""Every body and every answer through `fairway serve`, compressed and not, small and large, and KServe's V2 client."""

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

import fairway
from tests.documents import ROOT
from tests.e2e.servers import MIXED, Server, output, serving, visits

pytestmark = pytest.mark.e2e
PATH = "/v2/models/shop/versions/2/infer"
CLIENTS = Path(sys.prefix) / "clients" / "bin" / "python"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home) as running:
        yield running


def bodies(frame: pd.DataFrame) -> dict[str, bytes]:
    """The same rows as people's tools write them."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    found = {
        "text/csv": frame.to_csv(index=False).encode(),
        "application/jsonlines": frame.to_json(orient="records", lines=True, date_format="iso").encode(),
        "application/json": json.dumps(
            {"dataframe_records": json.loads(frame.to_json(orient="records", date_format="iso"))}
        ).encode(),
    }
    parquet = io.BytesIO()
    frame.to_parquet(parquet)
    found["application/vnd.apache.parquet"] = parquet.getvalue()
    for kind, begin in (("stream", pa.ipc.new_stream), ("file", pa.ipc.new_file)):
        file = io.BytesIO()
        with begin(file, table.schema) as writer:
            writer.write_table(table)
        found[f"application/vnd.apache.arrow.{kind}"] = file.getvalue()
    return found


@pytest.fixture(scope="module", params=[3, 4000])
def rows(request: pytest.FixtureRequest) -> pd.DataFrame:
    return visits(request.param, seed=21)[MIXED]


@pytest.mark.parametrize("coding", ["", "gzip", "zstd"])
def test_every_body_gets_the_same_answer(server: Server, home: Path, rows: pd.DataFrame, coding: str) -> None:
    with fairway.load("shop:2", home=home, record=False) as model:
        expected = model.predict(rows)
    for kind, body in bodies(rows).items():
        packed = {"": bytes, "gzip": gzip.compress, "zstd": zstd.compress}[coding](body)
        more = {"content_encoding": coding} if coding else {}
        status, _, answer = server.post(packed, PATH, kind, **more)
        assert status == 200, (kind, answer)
        np.testing.assert_array_equal(output(answer, "label"), expected["label"], err_msg=kind)
        np.testing.assert_allclose(output(answer, "probabilities"), expected["probabilities"], atol=1e-6)


@pytest.mark.parametrize("coding", ["", "gzip", "zstd", "deflate"])
def test_every_answer_says_the_same(server: Server, rows: pd.DataFrame, coding: str) -> None:
    body = bodies(rows)["text/csv"]
    wanted = server.post(body, PATH, "text/csv")[2]
    label, probabilities = output(wanted, "label"), output(wanted, "probabilities")

    def ask(accept: str) -> bytes:
        more = {"accept_encoding": coding} if coding else {}
        status, headers, content = server.ask(
            "POST", PATH, body, content_type="text/csv", accept=accept, **more
        )
        assert (status, headers["content-type"]) == (200, accept)
        assert headers["fairway-version"] == "shop:2"
        if len(content) < 200 or not coding:
            assert headers["content-encoding"] is None or coding
        if headers["content-encoding"]:
            assert headers["vary"] == "accept-encoding"
            assert headers["content-encoding"] == coding
            unpack = {"gzip": gzip.decompress, "zstd": zstd.decompress}.get(coding)
            if unpack is None:
                import zlib  # beside its only use

                unpack = zlib.decompress
            content = unpack(content)
        else:
            assert not coding or len(content) < 1024
        return content

    table = pd.read_csv(io.BytesIO(ask("text/csv")))
    assert table["label"].tolist() == label.tolist()
    np.testing.assert_array_equal(table[["probabilities_0", "probabilities_1"]].to_numpy(), probabilities)
    lines = [json.loads(line) for line in ask("application/jsonlines").splitlines()]
    assert [line["probabilities"] for line in lines] == probabilities.tolist()
    array = np.load(io.BytesIO(ask("application/x-npy")), allow_pickle=False)
    np.testing.assert_array_equal(array["probabilities"], probabilities.astype(np.float32))
    for kind in ("stream", "file"):
        begin = pa.ipc.open_stream if kind == "stream" else pa.ipc.open_file
        found = begin(pa.BufferReader(ask(f"application/vnd.apache.arrow.{kind}"))).read_all()
        assert found.column("label").to_pylist() == label.tolist()
    found = pq.read_table(pa.BufferReader(ask("application/vnd.apache.parquet")))
    np.testing.assert_array_equal(
        np.array(found.column("probabilities").to_pylist(), np.float32), probabilities.astype(np.float32)
    )


def test_what_cannot_be_done_is_said(server: Server) -> None:
    for sent, status, why in (
        ({"content_type": "application/pickle"}, 415, "Known are application/json"),
        ({"content_type": "text/csv", "accept": "image/png"}, 406, "known are application/json"),
        ({"content_type": "text/csv", "content_encoding": "br"}, 415, "gzip, deflate and zstd"),
        ({"content_type": "text/csv", "content_encoding": "gzip"}, 400, "not gzip"),
        ({"content_type": "text/csv", "content_encoding": "zstd"}, 400, "zstd"),
        ({"content_type": "application/vnd.apache.parquet"}, 400, "Parquet"),
    ):
        got, _, content = server.ask("POST", PATH, b"a,b\n1,2\n", **sent)
        assert got == status
        assert why in json.loads(content)["error"]


def test_bombs(server: Server) -> None:
    for coding, pack in (("gzip", gzip.compress), ("zstd", zstd.compress)):
        bomb = pack(b" " * 100_000_000)
        assert len(bomb) < 200_000
        status, _, content = server.ask("POST", PATH, bomb, content_type="text/csv", content_encoding=coding)
        assert status == 413
        assert "limits.body_bytes" in json.loads(content)["error"]
    pid = server.workers()[0] if server.workers() else server.process.pid
    peak = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    assert int(peak.split()[1]) < 900_000


def test_a_binary_body_compressed(server: Server) -> None:
    values = np.arange(6, dtype="<f8")
    head = json.dumps(
        {
            "inputs": [
                {"name": "m", "shape": [2, 3], "datatype": "FP64", "parameters": {"binary_data_size": 48}}
            ]
        }
    ).encode()
    status, _, answer = server.post(
        gzip.compress(head + values.tobytes()),
        "/v2/models/line/infer",
        "application/octet-stream",
        content_encoding="gzip",
        inference_header_content_length=str(len(head)),
    )
    assert status == 200, answer
    plain = server.post({"instances": values.reshape(2, 3).tolist()}, "/v2/models/line/infer")[2]
    assert answer == plain


def test_kserves_v2_client(server: Server, home: Path, tmp_path: Path) -> None:
    assert CLIENTS.is_file(), f"{CLIENTS} is missing: run make setup"
    values, expected = tmp_path / "values.json", tmp_path / "expected.json"
    matrix = np.random.default_rng(0).normal(size=(5, 3))
    values.write_text(json.dumps(matrix.tolist()))
    with fairway.load("line", home=home, record=False) as model:
        expected.write_text(json.dumps(model.predict(matrix)["prediction"].tolist()))
    script = ROOT / "tests" / "e2e" / "clients" / "kserve_v2.py"
    command = [str(CLIENTS), str(script), server.address, "line", str(values), str(expected)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "right" in done.stdout
