"""The payments example end to end: train once, deploy, serve, send live traffic. `make run` executes this.

    python -m examples.payments.run [--seconds 30] [--port 8080] [--rate 50] [--drift-after 45]

Prints one line that begins with `ready` once predictions flow, then one line a second, until Ctrl-C. After a while the
payments drift: amounts grow, other countries come, and fraud takes another shape. The monitor, whose windows are seconds
here, opens an incident that names the cause; the estimated performance falls at once, the measured one when the labels
come, half a minute later. Everything is kept below .run/: the model, the Fairway home, the server's log, the labels.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from examples.payments.simulate import Drift, Simulation
from examples.payments.traffic import LATER, Second, send_traffic

HOST = "127.0.0.1"
MODEL = "payments"
START_SECONDS = 60.0
STOP_SECONDS = 25.0
LOG_TAIL = 30
PER_DAY = 20
"""Simulated payments a day, so few that every window of the monitor has days in it, and each hour of the day its share."""
LABELS_AFTER = 30.0
"""Seconds until it is known whether a payment was fraud; in truth that takes weeks."""
QUICK_MONITOR = {
    "FAIRWAY_MONITORING_WINDOW_SECONDS": "10",
    "FAIRWAY_MONITORING_INTERVAL_SECONDS": "2",
    "FAIRWAY_MONITORING_GRACE_SECONDS": "1",
}


class Failed(Exception):
    """A step did not work; the message is for the person at the terminal."""


def fairway(*arguments: str) -> list[str]:
    """The command line of the `fairway` that belongs to this interpreter."""
    return [str(Path(sys.executable).with_name("fairway")), *arguments]


def prepare(root: Path, home: Path, *, rows: int, trees: int) -> None:
    """Trains on `rows` payments and deploys, unless both were done before."""
    artefacts = root / "payments"
    if not (artefacts / "model.joblib").exists():
        print(f"training on {rows:,} simulated payments ...", flush=True)
        # In a process of its own, so that the next run starts without scikit-learn.
        train = [sys.executable, "-m", "examples.payments.train", "--out", str(artefacts)]
        if subprocess.run([*train, "--rows", str(rows), "--trees", str(trees)], check=False).returncode:
            raise Failed("The training did not work; what it said is above.")
    if _is_deployed(home):
        return
    print("packaging, proving and registering ...", flush=True)
    deploy = fairway("deploy", str(artefacts / "model.joblib"), "--data", str(artefacts / "train.parquet"))
    reference = ["--reference", str(artefacts / "later.parquet")]
    done = subprocess.run(
        [*deploy, *reference, "--target", "is_fraud", "--name", MODEL, "--home", str(home)], check=False
    )
    if done.returncode:
        raise Failed(f"`fairway deploy` ended with {done.returncode}; what it said is above.")


def _is_deployed(home: Path) -> bool:
    if not home.exists():
        return False
    shown = subprocess.run(
        fairway("show", MODEL, "--json", "--home", str(home)), capture_output=True, text=True, check=False
    )
    return shown.returncode == 0


def free_port(wanted: int) -> int:
    """`wanted` if nobody has it, else one the system picks."""
    for port in (wanted, 0):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
            except OSError:
                continue
            return int(listener.getsockname()[1])
    raise Failed("No port is free.")


@contextmanager
def server(
    home: Path, port: int, grpc_port: int, control_port: int, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`fairway serve` in the background, its output in `log`; stopped with SIGTERM, as an init system would."""
    command = fairway("serve", MODEL, "--host", HOST, "--port", str(port), "--grpc-port", str(grpc_port))
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this process only, which then stops the server in order.
        process = subprocess.Popen(
            [*command, "--home", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **QUICK_MONITOR, "FAIRWAY_CONTROL_PORT": str(control_port)},
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failed(f"The server ended with {process.returncode} before it was ready.")
        connection = http.client.HTTPConnection(HOST, port, timeout=2)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(0.05)
    raise Failed(f"The server was not ready after {START_SECONDS:.0f} s.")


def drifting(rate: float, after: float | None) -> Simulation:
    """Payments that drift `after` so many seconds at `rate` payments a second; None: never."""
    if after is None:
        return Simulation(per_day=PER_DAY)
    start_hours = (LATER + rate * after) / PER_DAY * 24
    return Simulation(
        per_day=PER_DAY,
        drift=Drift(
            start_hours=start_hours, amount_shift=0.7, new_category=0.25, country_mix=0.6, concept=0.7
        ),
    )


class Aftermath(threading.Thread):
    """What becomes known later: labels are sent `LABELS_AFTER` seconds after their payments, and the incident of this run is
    printed whenever it is about more than it was."""

    def __init__(self, base: str, labels: Path, home: Path) -> None:
        super().__init__(daemon=True)
        self._base = base
        self._labels = labels
        self._home = home
        self._begun = datetime.now(UTC).isoformat()
        self._waiting: list[tuple[float, bytes]] = []
        self._place = labels.stat().st_size if labels.exists() else 0
        self._told: set[str] = set()

    def run(self) -> None:
        looked = time.monotonic()
        while True:
            time.sleep(1.0)
            self._collect()
            self._send()
            if time.monotonic() - looked > 5:
                looked = time.monotonic()
                self._tell()

    def _collect(self) -> None:
        if not self._labels.exists():
            return
        with self._labels.open("rb") as file:
            file.seek(self._place)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._place += len(line)
                known = json.loads(line)
                label = {"model": MODEL, "request_id": known["request_id"], "label": known["is_fraud"]}
                self._waiting.append((time.monotonic(), json.dumps(label).encode() + b"\n"))

    def _send(self) -> None:
        due = [line for when, line in self._waiting if when <= time.monotonic() - LABELS_AFTER]
        if not due:
            return
        request = urllib.request.Request(
            f"{self._base}/feedback", b"".join(due), {"content-type": "application/x-ndjson"}
        )
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except OSError:
            return  # they are sent again
        self._waiting = self._waiting[len(due) :]

    def _tell(self) -> None:
        listed = subprocess.run(
            fairway("incidents", "list", "--json", "--home", str(self._home)),
            capture_output=True,
            check=False,
        )
        if listed.returncode:
            return
        for incident in json.loads(listed.stdout):
            if incident["updated"] < self._begun:
                continue  # of an earlier run
            kinds = {signal["finding"]["kind"] for signal in incident["signals"] if signal.get("confirmed")}
            if kinds <= self._told:
                continue
            self._told |= kinds
            print(f"incident  {incident['title']}", flush=True)
            for cause in incident["causes"]:
                print(f"          {cause['text']}", flush=True)


def serve_and_send(
    root: Path, home: Path, *, port: int, rate: float, seconds: float | None, drift_after: float | None
) -> None:
    """Raises Failed when the server does not start, stops by itself, or answers with errors."""
    log = root / "serve.log"
    stop = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    told = False

    def report(second: Second) -> None:
        nonlocal told
        if second.ok and not told:
            told = True
            base = f"http://{HOST}:{chosen}"
            dashboard = f"http://{HOST}:{control}/"
            print(f"ready  {base}/v2/models/{MODEL}  dashboard {dashboard}  (Ctrl-C stops)", flush=True)
            if drift_after is not None and (seconds is None or drift_after < seconds):
                print(
                    f"the payments begin to drift in {drift_after:.0f} s; the dashboard will say so",
                    flush=True,
                )
        print(second, flush=True)

    chosen, control = free_port(port), free_port(8090)
    try:
        with server(home, chosen, free_port(8081), control, log) as process:
            wait_until_ready(process, chosen)
            Aftermath(f"http://{HOST}:{chosen}", root / "labels.jsonl", home).start()
            try:
                total = send_traffic(
                    f"http://{HOST}:{chosen}",
                    model=MODEL,
                    rate=rate,
                    seconds=seconds,
                    simulation=drifting(rate, drift_after),
                    labels=root / "labels.jsonl",
                    report=report,
                    stopped=lambda: stop.is_set() or process.poll() is not None,
                )
            except KeyboardInterrupt:
                print("stopping ...", flush=True)
                return
            if process.poll() is not None:
                raise Failed(f"The server ended by itself with {process.returncode}.")
            if total.failed or not total.ok:
                raise Failed(f"{total.failed} of {total.sent} payments got no prediction: {total.last_error}")
    except Failed as failure:
        tail = log.read_text(errors="replace").splitlines()[-LOG_TAIL:] if log.exists() else []
        raise Failed("\n".join([str(failure), f"the end of {log}:", *tail])) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The payments example, end to end.")
    parser.add_argument("--seconds", type=float, help="end by itself after so much traffic")
    parser.add_argument("--port", type=int, default=8080, help="taken if free, else another")
    parser.add_argument("--rate", type=float, default=50.0, help="payments a second")
    parser.add_argument(
        "--drift-after", type=float, default=45.0, help="seconds until the payments drift; below 0: never"
    )
    parser.add_argument("--root", type=Path, default=Path(".run"))
    parser.add_argument("--rows", type=int, default=40_000, help="payments to train on, the first time")
    parser.add_argument("--trees", type=int, default=80, help="trees of the forest, the first time")
    given = parser.parse_args(arguments)
    home = given.root / "home"
    try:
        prepare(given.root, home, rows=given.rows, trees=given.trees)
        serve_and_send(
            given.root,
            home,
            port=given.port,
            rate=given.rate,
            seconds=given.seconds,
            drift_after=None if given.drift_after < 0 else given.drift_after,
        )
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
