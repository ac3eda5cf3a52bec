"""The registry gone, held, replaced, cut off, on a disk that cannot be written: serving goes on, and says so."""

import ctypes
import json
import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from benchmarks.large import bundle_of, register, route, table_model
from fairway.app.home import open_home
from tests.e2e.reloading import traffic
from tests.e2e.servers import Server, serving, until
from tests.services import Postgres

pytestmark = pytest.mark.e2e

TABLE = "/v2/models/table/infer"
ROW = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return bundle_of(table_model(folder / "m.onnx", 0.1), folder / "b")


@pytest.fixture
def home(tmp_path: Path, bundle: Path) -> Path:
    return filled(tmp_path / "home", bundle)


def filled(home: Path, bundle: Path) -> Path:
    with open_home(home) as place:
        register(place, "table", bundle)
    route(home, "table", 1)
    return home


def alias(home: Path, name: str) -> None:
    with open_home(home) as place:
        place.registry.set_alias("table", name, 1, who="t", why="t")


def health(server: Server) -> Any:
    status, _, body = server.ask("GET", "/v2/health/ready")
    assert status == 200
    return json.loads(body)


def state(server: Server) -> str:
    registry = health(server)["registry"]
    return "" if registry is None else registry["state"]


def answers_alias(server: Server, name: str) -> bool:
    return server.post(ROW, f"/v2/models/table/versions/{name}/infer")[0] == 200


@contextmanager
def away(server: Server, home: Path, bring_back: Callable[[], object], reason: str) -> Iterator[None]:
    """Serving goes on in the block and after it, and what changes afterwards is seen."""
    with traffic(server.address, TABLE, ROW, clients=2, pause=0.002) as seen:
        until(lambda: state(server) == "away")
        until(lambda: server.metric("fairway_registry_up") == 0)  # now every worker has seen it
        yield
        told = health(server)
        assert told["ready"]
        assert reason in told["registry"]["reason"]
        assert told["registry"]["since"].endswith("Z")
        assert told["models"]["table"]["state"] == "ready"
        assert "serving goes on with what was live before" in server.errors.read_text()
        seen.wait_for(50)
        bring_back()
        until(lambda: state(server) == "ok")
        until(lambda: server.metric("fairway_registry_up") == 1)
        alias(home, "later")
        until(lambda: answers_alias(server, "later"))
    assert seen.failures == []
    assert "the registry is back" in server.errors.read_text()


def started(server: Server) -> None:
    until(lambda: state(server) == "ok")


def test_the_file_is_gone_and_comes_back(home: Path) -> None:
    with serving(home, "--workers", "2") as server:
        started(server)
        kept = home / "registry.kept"
        (home / "registry.db").rename(kept)
        with away(server, home, lambda: kept.rename(home / "registry.db"), "the file is gone"):
            pass


def test_another_process_holds_it(home: Path) -> None:
    with serving(home) as server:
        started(server)
        holder = sqlite3.connect(home / "registry.db", isolation_level=None, check_same_thread=False)
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        while True:
            try:
                holder.execute("BEGIN EXCLUSIVE")
                break
            except sqlite3.OperationalError:  # a look of the watcher's in between
                continue
        with away(server, home, holder.close, "locked"):
            pass


@pytest.mark.parametrize("names", [(), ("table",)])
def test_another_registry_in_its_place_is_not_followed(
    home: Path, tmp_path: Path, bundle: Path, names: tuple[str, ...]
) -> None:
    """It has no such model, and no keys: following it would unload the one and open the door."""
    other = tmp_path / "other"
    with open_home(other) as place:
        register(place, "stranger", bundle)
    route(other, "stranger", 1)
    with serving(home, *names) as server:
        started(server)
        kept = tmp_path / "kept"
        kept.mkdir()

        def move(source: Path, target: Path) -> None:
            for name in ("registry.db-wal", "registry.db-shm", "registry.db"):
                if (source / name).exists():
                    (source / name).rename(target / name)

        move(home, kept)
        move(other, home)

        def bring_back() -> None:
            shutil.rmtree(other)
            other.mkdir()
            move(home, other)
            move(kept, home)

        with away(server, home, bring_back, "table"):
            assert server.post(ROW, "/v2/models/stranger/infer")[0] == 404


def test_what_is_no_registry_any_more(home: Path) -> None:
    with serving(home) as server:
        started(server)
        path = home / "registry.db"
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        content = path.read_bytes()
        path.write_bytes(b"This is not a database. " * 1000)
        with away(server, home, lambda: path.write_bytes(content), "not a database"):
            pass


class Line:
    """A TCP connection to a database that can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening: socket.socket | None = None
        self._open: list[socket.socket] = []
        self.port = 0
        self.mend()

    def mend(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def cut(self) -> None:
        assert self._listening is not None
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            connection.close()
        self._open.clear()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                here, _ = listening.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._target))
            self._open += [here, there]
            for source, target in ((here, there), (there, here)):
                threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def test_postgresql_cut_off_and_back(postgres: Postgres, tmp_path: Path, bundle: Path) -> None:
    url = urlsplit(postgres.new_database())
    line = Line(postgres.port)
    home = tmp_path / "home"
    home.mkdir()
    address = url._replace(netloc=f"postgres@127.0.0.1:{line.port}").geturl()
    (home / "fairway.toml").write_text(f'[registry]\ndatabase_url = "{address}"\n')
    filled(home, bundle)
    with serving(home, "--workers", "2") as server:
        started(server)
        alias(home, "before")
        until(lambda: answers_alias(server, "before"))
        line.cut()
        with away(server, home, line.mend, "does not answer as it should"):
            pass
    line.cut()


def test_a_home_that_cannot_be_written(home: Path) -> None:
    with serving(home):
        pass  # has unpacked the bundle and left a snapshot
    folders = [home, *(path for path in home.rglob("*") if path.is_dir())]
    server_files = home / "log"
    shutil.rmtree(server_files, ignore_errors=True)
    try:
        with serving(home, "--workers", "2", limit=only_what_may_be_written) as server:
            for folder in folders:
                if folder.exists():
                    folder.chmod(0o555)
            started(server)
            assert server.post(ROW, TABLE)[0] == 200
            for folder in folders:
                if folder.exists():
                    folder.chmod(0o755)
            alias(home, "later")  # somebody else may write
            for folder in folders:
                if folder.exists():
                    folder.chmod(0o555)
            until(lambda: answers_alias(server, "later"))
            assert health(server)["ready"]
    finally:
        for folder in folders:
            if folder.exists():
                folder.chmod(0o755)


def only_what_may_be_written() -> None:
    """Root writes everywhere: without this capability it does not."""
    drop_bounding, dac_override = 24, 1
    if os.geteuid() == 0:
        assert ctypes.CDLL(None).prctl(drop_bounding, dac_override, 0, 0, 0) == 0
