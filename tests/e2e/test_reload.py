"""New versions, keys and requests to load or unload, under traffic: nobody loses a request."""

import http.client
import json
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fairway
from benchmarks.large import bundle_of, dense_model, private_bytes, register, route, table_model
from fairway.app.home import open_home
from fairway.core.errors import AlreadyExists, GoldenMismatch, ModelNotFound, NotFound
from fairway.core.route import Arm, Route
from fairway.inference.repository import State
from tests.e2e.reloading import repository_of, traffic
from tests.e2e.servers import Server, alive, output, serving, until

pytestmark = pytest.mark.e2e

TABLE = "/v2/models/table/infer"
ROW = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles of 2 MB: y = 10 and y = 110 for ROW (256 columns of which one is not zero)."""
    folder = tmp_path_factory.mktemp("bundles")
    return [
        bundle_of(table_model(folder / f"m{i}" / "m.onnx", 2, shift), folder / f"b{i}")
        for i, shift in enumerate((0.0, 100.0))
    ]


@pytest.fixture
def home(tmp_path: Path, bundles: list[Path]) -> Path:
    """`table` with two versions, the first one live."""
    home = tmp_path / "home"
    with open_home(home) as place:
        for bundle in bundles:
            register(place, "table", bundle)
    route(home, "table", 1)
    return home


def version_of(server: Server, path: str = TABLE) -> str:
    return server.post(ROW, path)[1]["fairway-version"]


def health(server: Server) -> Any:
    return json.loads(server.ask("GET", "/v2/health/ready")[2])


def wait_for_version(server: Server, version: int) -> None:
    until(lambda: version_of(server) == f"table:{version}")


def wait_for_another(server: Server, victim: int, workers: int) -> None:
    """Until a worker has taken the place of the one that was killed."""
    until(lambda: victim not in server.workers() and len(server.workers()) == workers)


def test_ten_reloads_under_traffic_lose_nothing(home: Path) -> None:
    with serving(home, "--workers", "2") as server:
        until(lambda: health(server)["registry"] is not None)
        with traffic(server.address, TABLE, ROW) as seen:
            for turn in range(10):
                version = 2 - turn % 2
                route(home, "table", version)
                wait_for_version(server, version)
                seen.wait_for(300)
        assert seen.failures == []
        assert seen.count > 3000
        assert set(seen.answers) == {"table:1", "table:2"}
        until(
            lambda: server.metric("fairway_model_unloads_total") == 20
        )  # the old one each time, in both workers
        assert server.metric("fairway_model_loads_total") == 22
        assert server.metric("fairway_reload_failures_total") == 0


def test_each_answer_is_of_the_version_that_its_header_names(home: Path) -> None:
    expected = {"table:1": 10.0, "table:2": 110.0}
    with serving(home) as server:
        for turn in range(4):
            route(home, "table", 2 - turn % 2)
            for _ in range(60):
                _, headers, told = server.post(ROW, TABLE)
                assert output(told, "y").item() == expected[headers["fairway-version"]]


def test_rollback_aliases_and_a_split(home: Path) -> None:
    with serving(home) as server:
        route(home, "table", 2)
        until(lambda: version_of(server) == "table:2")
        with open_home(home) as place:
            place.registry.set_alias("table", "safe", 1, who="t", why="t")
            until(lambda: server.post(ROW, "/v2/models/table/versions/safe/infer")[0] == 200)
            place.registry.rollback("table", who="t", why="t")
            until(lambda: version_of(server) == "table:1")
            now = place.registry.route("table")
            assert now is not None
            split = Route(model="table", arms=(Arm(1, 0.5), Arm(2, 0.5)))
            place.registry.set_route(split, expected_revision=now.revision, who="t", why="t")
            until(lambda: {version_of(server) for _ in range(20)} == {"table:1", "table:2"})


def test_a_model_that_is_new_is_served_without_a_restart(home: Path, bundles: list[Path]) -> None:
    with serving(home) as server:
        assert server.post(ROW, "/v2/models/other/infer")[0] == 404
        with open_home(home) as place:
            version = register(place, "other", bundles[1])
        route(home, "other", version)
        until(lambda: server.post(ROW, "/v2/models/other/infer")[0] == 200)


SHIFTED = """
from pathlib import Path

def predict(frame):
    return {"y": frame["x"].to_numpy() + float(Path(SHIFT).read_text())}
"""


@pytest.fixture
def shifting(tmp_path: Path) -> tuple[Path, Path]:
    """A home with two versions of `odd`, which reads a number from a file that its golden rows know as 1 and 2."""
    home, shift = tmp_path / "home", tmp_path / "shift"
    data = pd.DataFrame({"x": np.arange(20.0)})
    for number in (2, 1):
        shift.write_text(str(number))
        code = tmp_path / f"odd{number}.py"
        code.write_text(f"SHIFT = {str(shift)!r}\n" + SHIFTED + f"# {number}\n")
        fairway.deploy(f"{code}:predict", data, name="odd", home=home)
    return home, shift  # version 1 wants a 2, version 2, which is live, a 1


ODD = "/v2/models/odd/infer"
X = {"instances": [[1.0]]}


def test_a_version_that_fails_its_check_keeps_the_old_one_and_says_why(shifting: tuple[Path, Path]) -> None:
    home, shift = shifting
    with serving(home, "--workers", "2") as server:
        until(lambda: health(server)["registry"] is not None)
        with traffic(server.address, ODD, X) as seen:
            route(home, "odd", 1)
            until(lambda: server.metric("fairway_reload_failures_total") >= 2)
            seen.wait_for(200)
        assert seen.failures == []
        assert set(seen.answers) == {"odd:2"}
        told = health(server)
        assert told["ready"]
        assert told["models"]["odd"]["version"] == 2
        assert told["models"]["odd"]["state"] == "ready"
        assert "golden row" in told["models"]["odd"]["reason"]
        index = {state.version: state for state in repository_of(server, 2).index()}
        assert index[2].state is State.ready
        assert index[1].state is State.failed
        assert "golden row" in index[1].reason
        assert "goes on being served as it was: golden row" in server.errors.read_text()
        with pytest.raises(GoldenMismatch, match="golden row"):
            repository_of(server, 2).load("odd")

        victim = server.workers()[0]  # one that starts now has only the old one to serve, too
        os.kill(victim, signal.SIGKILL)
        wait_for_another(server, victim, 2)
        with traffic(server.address, ODD, X) as seen:
            seen.wait_for(200)
        assert set(seen.answers) == {"odd:2"}

        shift.write_text("2")  # what was wrong is mended, and something moves in the registry
        with open_home(home) as place:
            place.registry.set_alias("odd", "mended", 1, who="t", why="t")
        until(lambda: server.post(X, ODD)[1]["fairway-version"] == "odd:1")
        until(lambda: "reason" not in health(server)["models"]["odd"])


def test_load_and_unload_are_for_all_workers(home: Path, bundles: list[Path], tmp_path: Path) -> None:
    with open_home(home) as place:
        register(place, "spare", bundles[1])  # registered, and nothing routes to it
    with serving(home, "--workers", "3") as server:
        until(lambda: health(server)["registry"] is not None)
        repository = repository_of(server, 3)
        assert [(s.model, s.version, s.state) for s in repository.index()] == [
            ("table", 1, State.ready),
            ("table", 2, State.unloaded),
        ]
        for _ in range(3):
            repository.unload("table")
            answers = {server.post(ROW, TABLE)[0] for _ in range(20)}
            assert answers == {404}
            assert {s.state for s in repository.index()} == {State.unloaded}
            with pytest.raises(ModelNotFound):
                repository.unload("table")
            repository.load("table")
            assert {server.post(ROW, TABLE)[0] for _ in range(20)} == {200}
        repository.load("spare")
        assert {server.post(ROW, "/v2/models/spare/infer")[0] for _ in range(20)} == {200}
        repository.unload("spare")
        assert {server.post(ROW, "/v2/models/spare/infer")[0] for _ in range(20)} == {404}
        with pytest.raises(ModelNotFound, match="no model 'nobody'"):
            repository.load("nobody")

        repository.load("guest", source=str(bundles[1]))
        assert {server.post(ROW, "/v2/models/guest/infer")[0] for _ in range(20)} == {200}
        with pytest.raises(AlreadyExists):
            repository.load("guest", source=str(bundles[1]))
        with pytest.raises(NotFound, match="no bundle"):
            repository.load("ghost", source=str(tmp_path / "nothing"))
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)  # a new worker knows what was asked for
        wait_for_another(server, victim, 3)
        assert {server.post(ROW, "/v2/models/guest/infer")[0] for _ in range(30)} == {200}
        repository.unload("guest")
        assert {server.post(ROW, "/v2/models/guest/infer")[0] for _ in range(20)} == {404}
        assert "guest" not in {s.model for s in repository.index()}


def test_unloading_under_traffic_finishes_what_was_begun(home: Path) -> None:
    with serving(home, "--workers", "2") as server:
        repository = repository_of(server, 2)
        with traffic(server.address, TABLE, ROW) as seen:
            for _ in range(5):
                seen.wait_for(50)
                repository.unload("table")
                seen.wait_for(20)
                repository.load("table")
        assert seen.answers["table:1"] > 100
        assert [f for f in seen.failures if not f.startswith("404") or "not being served: it" not in f] == []


# Many models


MANY = 12


@pytest.fixture
def many(tmp_path: Path, bundles: list[Path]) -> Path:
    """Models of 2 MB, more than there is room for."""
    home = tmp_path / "many"
    with open_home(home) as place:
        for number in range(MANY):
            register(place, f"m{number}", bundles[number % 2])
    for number in range(MANY):
        route(home, f"m{number}", 1)
    (home / "fairway.toml").write_text(
        f'[serving]\nload = "lazy"\nmemory_bytes = {60 * 2**20}\n[models.m3]\npinned = true\n'
    )
    return home


def test_models_are_loaded_when_asked_for_and_go_when_room_is_needed(many: Path) -> None:
    with serving(many) as server:
        repository = repository_of(server)

        def loaded() -> set[str]:
            return {s.model for s in repository.index() if s.state is State.ready}

        assert loaded() == {"m3"}  # pinned
        assert server.ask("GET", "/v2/models/m5")[0] == 200  # told of without being loaded
        assert loaded() == {"m3"}
        gate = threading.Barrier(8)
        answers: list[int] = []

        def ask() -> None:
            gate.wait()
            answers.append(server.post(ROW, "/v2/models/m5/infer")[0])

        asking = [threading.Thread(target=ask) for _ in range(8)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert answers == [200] * 8
        assert server.metric("fairway_model_loads_total") == 2  # m3, and m5 once for all

        for _ in range(2):
            for number in range(MANY):
                status, _, told = server.post(ROW, f"/v2/models/m{number}/infer")
                assert status == 200
                assert output(told, "y").item() == 10.0 + 100.0 * (number % 2)
        until(lambda: "m3" in loaded())
        sizes = sum(s.bytes for s in repository.index())
        assert sizes <= 60 * 2**20
        assert server.post(ROW, "/v2/models/m0/infer", x_request_timeout_ms="20000")[0] == 200


def test_no_room_at_all_is_507(many: Path) -> None:
    text = (many / "fairway.toml").read_text()
    (many / "fairway.toml").write_text(text.replace(f"memory_bytes = {60 * 2**20}", f"memory_bytes = {2**20}").replace("pinned = true", "pinned = false"))  # fmt: skip
    with serving(many) as server:
        for _ in range(2):
            status, _, told = server.post(ROW, "/v2/models/m1/infer")
            assert (status, told["code"]) == (507, "out_of_memory")
            assert "serving.memory_bytes" in told["error"]


def test_what_comes_in_under_traffic_costs_the_others_nothing(many: Path) -> None:
    with serving(many) as server:
        assert server.post(ROW, "/v2/models/m3/infer")[0] == 200
        with traffic(server.address, "/v2/models/m3/infer", ROW, clients=2) as seen:
            for number in range(MANY):
                assert server.post(ROW, f"/v2/models/m{number}/infer")[0] == 200
            seen.wait_for(50)
        assert seen.failures == []


# The ends of processes


def test_a_worker_killed_under_traffic_loses_only_what_it_was_doing(home: Path) -> None:
    clients = 4
    with (
        serving(home, "--workers", "2") as server,
        traffic(server.address, TABLE, ROW, clients=clients) as seen,
    ):
        for kills in range(1, 4):
            seen.wait_for(200)
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            wait_for_another(server, victim, 2)
            seen.wait_for(200)
            assert len(seen.failures) <= kills * clients, (
                seen.failures
            )  # each client had at most one under way


def test_the_watcher_killed_is_replaced_and_nothing_else_happens(home: Path) -> None:
    with serving(home, "--workers", "2") as server:
        until(lambda: health(server)["registry"] is not None)
        with traffic(server.address, TABLE, ROW) as seen:
            [watcher] = server.watchers()
            os.kill(watcher, signal.SIGKILL)
            until(lambda: server.watchers() not in ([], [watcher]))
            route(home, "table", 2)
            until(lambda: version_of(server) == "table:2")
            workers = server.workers()
            seen.wait_for(100)
        assert seen.failures == []
        assert server.workers() == workers
        [watcher] = server.watchers()
    until(lambda: not alive(watcher))


def test_stopping_under_traffic_answers_what_was_begun(home: Path) -> None:
    with serving(home, "--workers", "2") as server:
        with traffic(server.address, TABLE, ROW) as seen:
            seen.wait_for(200)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(30) == 0
        assert not any(failure.startswith("5") for failure in seen.failures), seen.failures


def test_readiness_goes_off_before_connections_are_refused(home: Path) -> None:
    (home / "fairway.toml").write_text("[serving]\nunready_seconds = 1.5\n")
    with serving(home) as server:
        assert server.ask("GET", "/v2/health/ready")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.ask("GET", "/v2/health/ready")[0] == 503)
        assert server.post(ROW, TABLE)[0] == 200
        assert server.process.wait(30) == 0


def test_a_second_signal_does_not_wait(shifting: tuple[Path, Path], tmp_path: Path) -> None:
    code = tmp_path / "sleeper.py"
    code.write_text(
        "import time\n\ndef predict(frame):\n"
        "    time.sleep(float(frame['s'].iloc[0]))\n    return {'y': frame['s'].to_numpy()}\n"
    )
    home = shifting[0]
    fairway.deploy(f"{code}:predict", pd.DataFrame({"s": [0.0] * 20}), name="sleeper", home=home)
    with serving(home, "sleeper") as server:

        def ask() -> None:
            with suppress(OSError, http.client.HTTPException):  # it is not answered any more
                server.post({"instances": [[15.0]]}, "/v2/models/sleeper/infer")

        sleeping = threading.Thread(target=ask)
        sleeping.start()
        time.sleep(0.5)
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert server.process.poll() is None  # it waits for the request
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 12  # the request would have taken longer
        sleeping.join()


def test_stopping_does_not_wait_for_a_load(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    code = tmp_path / "late.py"
    code.write_text(
        f"import time\nfrom pathlib import Path\n\nif Path({str(slow)!r}).exists():\n    time.sleep(60)\n\n"
        "def predict(frame):\n    return {'y': frame['x'].to_numpy()}\n"
    )
    home = tmp_path / "home"
    fairway.deploy(f"{code}:predict", pd.DataFrame({"x": np.arange(20.0)}), name="late", home=home)
    slow.touch()
    (home / "fairway.toml").write_text('[serving]\nload = "lazy"\ndrain_seconds = 1\n')
    with serving(home) as server:
        status, _, told = server.post(X, "/v2/models/late/infer", x_request_timeout_ms="700")
        assert (status, told["code"]) == (504, "deadline_exceeded")
        assert "while late was being loaded" in told["error"]
        assert [s.state for s in repository_of(server).index()] == [State.loading]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert "is killed" not in server.errors.read_text()


# Large weights


def test_workers_share_a_models_weights(tmp_path: Path) -> None:
    """What a worker has of its own stays far below the weights that all of them use."""
    megabytes, workers = 144, 3
    home = tmp_path / "home"
    with open_home(home) as place:
        register(place, "large", bundle_of(dense_model(tmp_path / "m" / "m.onnx", megabytes), tmp_path / "b"))
    route(home, "large", 1)
    with serving(home, "--workers", str(workers)) as server:
        for _ in range(20):
            assert server.post(ROW, "/v2/models/large/infer")[0] == 200
        until(lambda: len(server.workers()) == workers)
        shares = [private_bytes(pid) for pid in server.workers()]
    together = sum(pss for pss, _ in shares)
    own = max(private for _, private in shares)
    assert own < megabytes * 2**20 * 0.7, shares  # its weights would be more than that alone
    assert together < (megabytes + workers * 100) * 2**20, shares


def test_memory_is_given_back(tmp_path: Path, bundles: list[Path]) -> None:
    """A model that takes far more than its files, as a library may: 40 MB, 15 times."""
    code = tmp_path / "hungry.py"
    code.write_text(
        "import numpy as np\n\nHELD = np.random.default_rng(1).random(5_000_000)\n\n"
        "def predict(frame):\n    return {'y': frame['x'].to_numpy() + HELD[0] - HELD[0]}\n"
    )
    home = tmp_path / "home"
    fairway.deploy(f"{code}:predict", pd.DataFrame({"x": np.arange(20.0)}), name="hungry", home=home)
    with serving(home) as server:
        repository = repository_of(server)
        [worker] = server.workers()

        def cycles(count: int) -> int:
            for _ in range(count):
                repository.unload("hungry")
                repository.load("hungry")
                assert server.post(X, "/v2/models/hungry/infer")[0] == 200
            return private_bytes(worker)[1]

        before = cycles(5)
        after = cycles(15)
        assert after - before < 40 * 2**20  # one copy at most, where 15 would be 600 MB
        repository.unload("hungry")
        until(lambda: private_bytes(worker)[1] < after - 30 * 2**20)
