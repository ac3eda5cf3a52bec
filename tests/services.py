"""Real servers for tests: one PostgreSQL cluster for all xdist workers, one S3 server and one Redis per worker.

A missing PostgreSQL or Redis fails the tests that need it, with the installer's message; nothing is skipped.
"""

import fcntl
import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import sqlalchemy as sa

_INSTALLER = Path(__file__).parent.parent / "scripts" / "services.sh"
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
    "max_connections": "100",
}


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    port: int
    directory: Path
    programs: Path

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database of its own."""
        import psycopg  # here and below: most tests need none of this, and moto takes a second to import

        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def kill(self) -> None:
        """At once, without writing anything more: as a crash."""
        _as_postgres(self.programs / "pg_ctl", "-D", self.directory / "data", "-m", "immediate", "stop")

    def start(self) -> None:
        """After `kill`, on the port it had."""
        data, log = self.directory / "data", self.directory / "log"
        _as_postgres(self.programs / "pg_ctl", "-D", data, "-l", log, "-o", _flags(self.port), "-w", "start")


@contextmanager
def own_postgres() -> Iterator[Postgres]:
    """A server that nobody else uses, to be killed."""
    server = _start_postgres()
    try:
        yield server
    finally:
        try:
            server.kill()
        except RuntimeError:
            pass  # it is down already
        shutil.rmtree(server.directory)


def _flags(port: int) -> str:
    return " ".join(f"-c {name}={value or repr('')}" for name, value in {**_OPTIONS, "port": port}.items())


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The first worker to ask starts the server, the last to finish stops it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    state = shared / "postgres.json"
    with _locked(shared / "postgres.lock"):
        known = json.loads(state.read_text()) if state.exists() else None
        if known is None:
            server = _start_postgres()
            known = {
                "port": server.port,
                "directory": str(server.directory),
                "programs": str(server.programs),
                "users": 0,
            }
        known["users"] += 1
        state.write_text(json.dumps(known))
    server = Postgres(known["port"], Path(known["directory"]), Path(known["programs"]))
    yield server
    with _locked(shared / "postgres.lock"):
        known = json.loads(state.read_text())
        known["users"] -= 1
        if known["users"]:
            state.write_text(json.dumps(known))
        else:
            state.unlink()
            _as_postgres(
                server.programs / "pg_ctl", "-D", server.directory / "data", "-m", "immediate", "stop"
            )
            shutil.rmtree(server.directory)


def _start_postgres() -> Postgres:
    found = subprocess.run([_INSTALLER], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.fail(f"No PostgreSQL for the tests.\n{found.stderr}", pytrace=False)
    programs = Path(found.stdout.strip().splitlines()[-1])
    directory = Path(
        tempfile.mkdtemp(prefix="fairway-postgres-")
    )  # pytest's own folders are closed to others
    if os.getuid() == 0:
        shutil.chown(directory, "postgres", "postgres")
    data = directory / "data"
    _as_postgres(
        programs / "initdb",
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
    )
    for _ in range(5):
        port = free_port()
        log = directory / "log"
        try:
            _as_postgres(programs / "pg_ctl", "-D", data, "-l", log, "-o", _flags(port), "-w", "start")
        except RuntimeError as failure:
            error = failure  # the port may have been taken since
            continue
        return Postgres(port, directory, programs)
    raise error


def _as_postgres(*command: object) -> None:
    """Runs a program of PostgreSQL, which refuses to run as root."""
    user: dict[str, Any] = (
        {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    )
    # Output goes to a file: the server inherits it and would keep a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            [str(part) for part in command], stdout=output, stderr=output, cwd="/", check=False, **user
        )
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{command[0]} failed: {output.read()}")


@dataclass(frozen=True)
class S3:
    """A running S3 server."""

    endpoint: str
    options: dict[str, Any] = field(default_factory=dict)

    def new_bucket(self) -> str:
        """The URL of an empty bucket of its own."""
        import s3fs

        name = f"fairway-{secrets.token_hex(8)}"
        s3fs.S3FileSystem(**self.options).mkdir(name)
        return f"s3://{name}"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line per request would bury what failed
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    yield S3(endpoint, {"endpoint_url": endpoint, "key": "test", "secret": "test"})
    server.stop()


@dataclass
class Redis:
    """A server of its own, whose data survives `stop` and `start`."""

    directory: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            found = subprocess.run([_INSTALLER], capture_output=True, text=True, check=False)
            program = shutil.which("redis-server")
            if program is None:
                pytest.fail(f"No Redis for the tests.\n{found.stderr}", pytrace=False)
        for _ in range(5):
            self.port = self.port or free_port()
            options = {
                "port": self.port,
                "bind": "127.0.0.1",
                "dir": self.directory,
                "save": "",
                "appendonly": "yes",
            }
            command = [
                program,
                *(str(part) for name, value in options.items() for part in (f"--{name}", value)),
            ]
            with (self.directory / "log").open("ab") as log:
                self.process = subprocess.Popen(command, stdout=log, stderr=log)
            while self.process.poll() is None:
                if b"PONG" in self._ask(b"PING\r\n"):
                    return
                time.sleep(0.02)
            self.port = 0  # it may have been taken since
        pytest.fail(f"Redis does not start.\n{(self.directory / 'log').read_text()}", pytrace=False)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def _ask(self, command: bytes) -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(command)
                return connection.recv(100)
        except OSError:
            return b""


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """Shared by the tests of a worker: use names of your own in it, and do not stop it."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


def until_one_waits(engine: "sa.Engine") -> None:
    """Returns once a session of a PostgreSQL database waits for what another has locked."""
    asked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            if connection.exec_driver_sql(asked).scalar_one():
                return
        time.sleep(0.02)
    raise AssertionError("nobody waited")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
