"""Feedback over HTTP: taken is on the disk, wrong is named, a key reaches its own models."""

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fairway.core.errors import Unavailable
from fairway.core.settings import LogSettings
from fairway.security.access import Access
from fairway.security.keys import new_key
from fairway.stores.label_log import LabelLog
from fairway.stores.log_reading import PredictionLog
from tests.failing_disk import fail_next_fdatasync
from tests.logs import label, opened
from tests.planes import plane, split
from tests.unit.serving.conftest import Port, Serve


def kept(folder: Path, model: str = "m") -> list[tuple[str | None, int, str]]:
    log: PredictionLog = opened(folder)
    return sorted(
        (row["request_id"] or row["key"], row["row"], row["label"])
        for batch in log.labels(model)
        for row in batch.to_pylist()
    )


def post(
    port: Port, body: Any, kind: str = "application/json", path: str = "/feedback", **headers: str
) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, answer = port.ask("POST", path, content, content_type=kind, **headers)
    return status, json.loads(answer)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_labels_that_were_taken_are_on_the_disk(serve: Serve, folder: Path) -> None:
    port = serve(plane(), log=LogSettings(folder=str(folder)))
    assert post(port, {"request_id": "r1", "label": 1}) == (200, {"accepted": 1, "rejected": 0, "errors": []})
    assert kept(folder) == [("r1", 0, "1")]
    assert post(port, b"request_id,label\nr2,0\nr3,x\n", "text/csv")[1]["accepted"] == 2
    assert post(port, b'{"key": "k", "label": 2}\n', "application/x-ndjson")[1]["accepted"] == 1
    assert kept(folder) == [("k", 0, "2"), ("r1", 0, "1"), ("r2", 0, "0"), ("r3", 0, '"x"')]


def test_wrong_rows_are_named_and_the_others_taken(serve: Serve, folder: Path) -> None:
    port = serve(plane(), log=LogSettings(folder=str(folder)))
    status, told = post(port, [{"request_id": "r1", "label": 1}, {"request_id": "r2"}])
    assert (status, told["accepted"], told["rejected"]) == (200, 1, 1)
    assert told["errors"][0]["row"] == 1
    assert "either label or labels" in told["errors"][0]["reason"]
    status, told = post(port, [{"request_id": "r2"}])
    assert (status, told["code"], told["problems"][0]["row"]) == (400, "invalid_input", 0)
    assert post(port, b"[", "application/json")[0] == 400
    assert post(port, b"x", "application/x-npy")[0] == 415
    assert port.ask("GET", "/feedback")[0] == 405
    assert kept(folder) == [("r1", 0, "1")]


def test_large_bodies_are_written_in_blocks(serve: Serve, folder: Path) -> None:
    port = serve(plane(), log=LogSettings(folder=str(folder)))
    body = b"request_id,label\n" + b"".join(b"r%d,%d\n" % (i, i % 2) for i in range(30_000)) + b"bad\n"
    status, told = post(port, body, "text/csv")
    assert (status, told["accepted"], told["rejected"]) == (200, 30_000, 1)
    assert told["errors"][0]["row"] == 30_000
    assert len(kept(folder)) == 30_000
    text = port.ask("GET", "/metrics")[2].decode()
    assert 'fairway_feedback_labels_total{outcome="accepted"} 30000.0' in text
    assert 'fairway_feedback_labels_total{outcome="rejected"} 1.0' in text


def test_which_model_a_label_is_for(serve: Serve, folder: Path) -> None:
    port = serve(plane(split("a", 1.0), split("b", 1.0)), log=LogSettings(folder=str(folder)))
    assert post(port, {"request_id": "r0", "label": 1, "model": "b"})[0] == 200
    assert post(port, {"request_id": "r1", "label": 1}, path="/feedback?model=a")[0] == 200
    assert post(port, {"request_id": "r2", "label": 1}, x_fairway_model="b")[0] == 200
    assert post(port, {"request_id": "r3", "label": 1})[0] == 200
    assert post(port, {"request_id": "r4", "label": 1, "model": "../etc"})[0] == 400
    found = {model: [name for name, _, _ in kept(folder, model)] for model in ("a", "b", "_")}
    assert found == {"a": ["r1"], "b": ["r0", "r2"], "_": ["r3"]}


def test_a_key_needs_the_scope_and_reaches_its_models(serve: Serve, folder: Path) -> None:
    now = datetime.now(UTC)
    made = {
        name: new_key(name, scopes=scopes, models=models, now=now)
        for name, scopes, models in (
            ("all", ("feedback",), ()),
            ("only-a", ("feedback",), ("a",)),
            ("infer", ("infer",), ()),
        )
    }
    access = Access(key for key, _ in made.values())
    models = plane(split("a", 1.0), split("b", 1.0))
    port = serve(models, access=access, log=LogSettings(folder=str(folder)))
    row = {"request_id": "r", "label": 1}
    assert post(port, row)[0] == 401
    assert post(port, row, x_api_key=made["infer"][1])[0] == 403
    assert post(port, row, x_api_key=made["all"][1])[0] == 200
    assert post(port, row, x_api_key=made["only-a"][1])[0] == 200
    status, told = post(port, {**row, "model": "b"}, x_api_key=made["only-a"][1])
    assert status == 400
    assert "does not reach" in told["problems"][0]["reason"]
    assert (kept(folder, "a"), kept(folder, "b"), len(kept(folder, "_"))) == ([("r", 0, "1")], [], 1)


def test_keys_as_the_settings_allow_them(serve: Serve, folder: Path, tmp_path: Path) -> None:
    settings = LogSettings(folder=str(folder), key_privacy="hash", secret_file=str(tmp_path / "secret"))
    port = serve(plane(), log=settings)
    assert post(port, {"key": "ann-somebody", "label": 1})[0] == 200
    [(name, _, _)] = kept(folder)
    assert name is not None
    assert len(name) == 32
    assert all(b"ann-somebody" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_keys_that_are_not_kept_cannot_be_labelled(serve: Serve, folder: Path) -> None:
    port = serve(plane(), log=LogSettings(folder=str(folder), key_privacy="drop"))
    status, told = post(port, {"key": "ann", "label": 1})
    assert status == 400
    assert "key_privacy" in told["problems"][0]["reason"]


def test_many_at_once_share_the_disk(serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while the disk is busy is made safe by one call."""
    syncs, gate = [], threading.Event()
    real = LabelLog.sync

    def slow(self: LabelLog, since: int | None = None) -> None:
        syncs.append(1)
        gate.wait(10)
        real(self, since)

    monkeypatch.setattr(LabelLog, "sync", slow)
    port = serve(plane(), log=LogSettings(folder=str(folder)))
    answers: list[int] = []
    threads = [
        threading.Thread(
            target=lambda i=i: answers.append(post(port, {"request_id": f"r{i}", "label": i})[0])
        )
        for i in range(20)
    ]
    for thread in threads:
        thread.start()
    while port.app.labels._labels < 20:
        pass
    gate.set()
    for thread in threads:
        thread.join()
    assert answers == [200] * 20
    assert len(kept(folder)) == 20
    assert len(syncs) < 10


def test_a_disk_that_cannot_be_written_is_told_and_recovers(serve: Serve, folder: Path) -> None:
    port = serve(plane(), log=LogSettings(folder=str(folder)))
    folder.write_text("a file where the folder should be")
    status, told = post(port, {"request_id": "r1", "label": 1})
    assert (status, told["code"]) == (503, "unavailable")
    folder.unlink()
    assert post(port, {"request_id": "r1", "label": 1})[0] == 200
    assert kept(folder) == [("r1", 0, "1")]


def test_a_failure_that_another_request_was_told_of_is_told_to_all_it_may_have_hit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large request in a thread of its own appends; a small one's sync then fails and takes both off the list."""
    log = LabelLog(folder, LogSettings())
    fail_next_fdatasync(monkeypatch)
    large = log.failures
    log.append([label("large", 1, 0.0)], "", 0.0)
    small = log.failures
    log.append([label("small", 1, 0.0)], "", 0.0)
    with pytest.raises(Unavailable, match="Input/output error"):
        log.sync(small)
    with pytest.raises(Unavailable, match="Input/output error"):
        log.sync(large)
    again = log.failures
    log.append([label("large", 1, 0.0)], "", 0.0)
    log.sync(again)
    log.close()


def test_too_many_waiting_are_refused(serve: Serve, folder: Path) -> None:
    port = serve(plane(), log=LogSettings(folder=str(folder), label_queue=2))
    status, told = post(port, [{"request_id": str(i), "label": 1} for i in range(3)])
    assert (status, told["code"]) == (503, "overloaded")
    assert post(port, [{"request_id": str(i), "label": 1} for i in range(2)])[0] == 200
