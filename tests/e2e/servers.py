"""`fairway serve` as users start it, and small models to serve."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fairway.stores.log_reading import Segment, rows_of
from tests.asking import ask

FAIRWAY = str(Path(sys.executable).with_name("fairway"))
NUMBERS = ["amount", "items", "member"]
MIXED = [*NUMBERS, "country", "at"]


def visits(rows: int, seed: int = 7) -> pd.DataFrame:
    """Mixed columns: floats with nulls, nullable integers and booleans, categories with nulls, timestamps."""
    random = np.random.default_rng(seed)
    amount = np.where(random.random(rows) < 0.1, np.nan, random.gamma(2.0, 40.0, rows).round(2))
    items = pd.array(random.integers(1, 9, rows), dtype="Int64")
    items[random.random(rows) < 0.1] = pd.NA
    member = pd.array(random.random(rows) < 0.4, dtype="boolean")
    member[random.random(rows) < 0.1] = pd.NA
    country = random.choice(np.array(["DE", "FR", "PL"], dtype=object), rows)
    country[random.random(rows) < 0.1] = None
    at = pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 90 * 86_400, rows), unit="s")
    frame = pd.DataFrame({"amount": amount, "items": items, "member": member, "country": country, "at": at})
    frame["bought"] = (
        np.nan_to_num(amount) / 80 + (country == "FR") + random.normal(0, 0.5, rows) > 1.4
    ).astype(int)
    return frame


def mixed_model(frame: pd.DataFrame) -> Pipeline:
    steps = ColumnTransformer(
        [
            ("numbers", Pipeline([("fill", SimpleImputer()), ("scale", StandardScaler())]), NUMBERS),
            ("country", Pipeline([("fill", SimpleImputer(strategy="constant", fill_value="?")), ("hot", OneHotEncoder(handle_unknown="ignore"))]), ["country"]),
        ]
    )  # fmt: skip
    return Pipeline([("columns", steps), ("model", LogisticRegression())]).fit(
        as_fitted(frame), frame["bought"]
    )


def as_fitted(frame: pd.DataFrame) -> pd.DataFrame:
    """What scikit-learn takes of it: nullable numbers as floats, null texts as NaN."""
    numbers = {name: frame[name].astype("Float64").to_numpy(dtype=float, na_value=np.nan) for name in NUMBERS}
    text = frame["country"].astype(object).where(frame["country"].notna(), np.nan)
    return pd.DataFrame({**numbers, "country": text, "at": frame["at"]})


def numeric_data(rows: int = 300) -> pd.DataFrame:
    values = np.random.default_rng(3).normal(size=(rows, 3))
    frame = pd.DataFrame(values, columns=["a", "b", "c"])
    frame["y"] = values @ [1.0, -2.0, 0.5] + 3
    return frame


def numeric_model(frame: pd.DataFrame) -> LinearRegression:
    return LinearRegression().fit(frame[["a", "b", "c"]], frame["y"])


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON carries them."""
    return json.loads(frame.to_json(orient="records", date_format="iso"))


@dataclass
class Server:
    process: subprocess.Popen[str]
    address: str
    errors: Path
    grpc: str = ""
    """Address of the gRPC port, empty when there is none."""

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        return ask(self.address, method, path, body, **headers)

    def post(
        self, value: Any, path: str, kind: str = "application/json", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, Any]:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        status, told, content = self.ask("POST", path, body, content_type=kind, **headers)
        return status, told, json.loads(content)

    def workers(self) -> list[int]:
        return self._children("fairway.serving.worker")

    def watchers(self) -> list[int]:
        """The process that watches the registry, once it has been started."""
        return self._children("fairway.serving.watcher")

    def _children(self, module: str) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split() if module in _command(int(pid))]

    def metric(self, name: str) -> float:
        """The sum of a counter over its labels."""
        text = self.ask("GET", "/metrics")[2].decode()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.startswith((f"{name}{{", f"{name} "))
        )


@contextmanager
def serving(
    home: Path, *options: str, environ: dict[str, str] | None = None, limit: Callable[[], None] | None = None
) -> Iterator[Server]:
    """`fairway serve` on a free port, until it answers."""
    ports = ("--port", "0", "--grpc-port", "0")
    command = [FAIRWAY, "serve", *ports, "--home", str(home), "--json", *options]
    errors = home / f"server-{time.monotonic_ns()}.txt"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **(environ or {})},
            preexec_fn=limit,  # noqa: PLW1509
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, errors.read_text()
        told = json.loads(line)
        yield Server(process, urlsplit(told["address"]).netloc, errors, told["grpc"] or "")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


def refused(home: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and message of a server that would not start."""
    command = [FAIRWAY, "serve", "--port", "0", "--home", str(home), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "", done.stdout
    assert done.stderr, done
    return done.returncode, json.loads(done.stderr.strip().splitlines()[-1])


def output(body: Any, name: str) -> np.ndarray:
    [found] = [tensor for tensor in body["outputs"] if tensor["name"] == name]
    return np.array(found["data"]).reshape(found["shape"])


def log_of(home: Path, model: str) -> pd.DataFrame:
    """Every row of a model's log, whole batches of unfinished segments included; a batch that is being written now is
    not."""
    batches = [
        batch
        for path in sorted((home / "log" / model).glob("v*/*.arrows"))
        for batch in rows_of(Segment(model, path.parent.name, path))
    ]
    tables = [pa.Table.from_batches([batch]) for batch in batches]
    return (
        pa.concat_tables(tables, promote_options="default").to_pandas()
        if tables
        else pd.DataFrame({"request_id": []})
    )


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits for something that another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
