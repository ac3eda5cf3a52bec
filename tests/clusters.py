"""Real clusters on this machine for the tests: Spark of one master and two workers, Ray of two nodes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import pytest

_READY_SECONDS = 180
_LIGHT_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
"""Six JVMs start for a test of Spark, and hardly work: that costs half the processor time so."""
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Also when pytest is killed. Executors end when their worker is gone."""
_INSTALLER = Path(__file__).parent.parent / "scripts" / "services.sh"

SPARK_ENVIRONMENT = {"SPARK_LOCAL_IP": "127.0.0.1", "JAVA_TOOL_OPTIONS": _LIGHT_JVM}


@contextmanager
def spark_cluster(folder: Path) -> Iterator[str]:
    """A standalone cluster of pyspark's own programs, each worker with one core; gives its URL."""
    import pyspark

    _require_java()
    program = Path(pyspark.__file__).parent / "bin" / "spark-class"
    environment = {**os.environ, **SPARK_ENVIRONMENT, "SPARK_DAEMON_MEMORY": "256m"}
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> Path:
        log = folder / f"{name}.log"
        with log.open("wb") as output:
            command = [*DIES_WITH_US, str(program), *arguments]
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        started.append(process)
        return log

    try:
        master = "org.apache.spark.deploy.master.Master"
        log = start("master", master, "--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
        url = _wait_for(log, r"Starting Spark master at (spark://\S+)", started[0])
        worker = "org.apache.spark.deploy.worker.Worker"
        options = ("--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--webui-port", "0")
        logs = [
            start(f"worker{i}", worker, *options, "--work-dir", str(folder / f"w{i}"), url) for i in (1, 2)
        ]
        for place, process in zip(logs, started[1:], strict=True):
            _wait_for(place, r"(Successfully registered) with master", process)
        yield url
    finally:
        for process in reversed(started):
            with _gone():
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


@contextmanager
def ray_cluster(folder: Path) -> Iterator[str]:
    """Two nodes of one CPU each, in a process of its own; gives the address."""
    log = folder / "ray.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _RAY],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, "RAY_worker_niceness": "0"},  # 15 by default: nothing moves on a busy machine
            start_new_session=True,
        )
    try:
        yield _wait_for(log, r"(?m)^address (\S+:\d+)$", process)  # Ray itself writes of addresses too
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it stops its nodes in order
        try:
            process.wait(30)
        finally:
            with _gone():
                os.killpg(process.pid, signal.SIGKILL)


_RAY = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
print()  # Ray may have left a line unended
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def kill_who_writes(folder: Path, process: subprocess.Popen[bytes], *, parent: bool) -> bool:
    """SIGKILL for the first process that has a hidden part in `folder` open, or for the executor above it, whose
    Python workers a daemon makes. False when `process` ended before."""
    hidden = f"{folder}/.part-"
    while process.poll() is None:
        # Looking through all open files is slow: only when there is a part to be found.
        for held in _writers(hidden) if glob(f"{hidden}*.tmp") else ():
            with _gone():
                os.kill(_executor(held) if parent else held, signal.SIGKILL)
                return True
        time.sleep(0.005)
    return False


def _writers(hidden: str) -> Iterator[int]:
    for place in Path("/proc").glob("[0-9]*/fd"):
        try:
            for handle in place.iterdir():
                if os.readlink(handle).startswith(hidden):
                    yield int(place.parent.name)
                    break
        except OSError:
            continue


def _executor(process: int) -> int:
    """The JVM above a Python worker."""
    while "CoarseGrainedExecutorBackend" not in Path(f"/proc/{process}/cmdline").read_text():
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process


@contextmanager
def _gone() -> Iterator[None]:
    try:
        yield
    except (ProcessLookupError, FileNotFoundError):
        pass


def _wait_for(log: Path, pattern: str, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + _READY_SECONDS
    while not (found := re.search(pattern, log.read_text(errors="replace"))):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"The cluster does not start.\n{log.read_text(errors='replace')}", pytrace=False)
        time.sleep(0.05)
    return found[1]


def _require_java() -> None:
    def there() -> bool:
        try:
            return subprocess.run(["java", "-version"], capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False

    if not there():
        done = subprocess.run([_INSTALLER], capture_output=True, text=True, check=False)
        if not there():
            pytest.fail(f"No Java for Spark.\n{done.stderr}", pytrace=False)
