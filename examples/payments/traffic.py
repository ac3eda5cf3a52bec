"""Sends live payments to a running server, at a steady rate, and keeps the labels that come late.

    python -m examples.payments.traffic --url http://127.0.0.1:8080 --rate 50

One payment is one request, over one connection that stays open. Every second a line says what happened.
What is not known yet when the payment is made, whether it was fraud, goes to `--labels` as JSON lines
(`request_id`, `payment_id`, `paid_at`, `label_at`, `is_fraud`): the truth a later feedback would report.
Uses the standard library for HTTP: this is what any client has to do.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from examples.payments.simulate import FEATURES, TARGET, Drift, Simulation, stream

LATER = 50_000
"""Traffic begins with this payment: after the 40,000 the model was trained on and 10,000 it was tested on."""


@dataclass
class Second:
    """What happened in one second."""

    sent: int = 0
    ok: int = 0
    failed: int = 0
    fraud: int = 0
    milliseconds: list[float] = field(default_factory=list)
    last_error: str = ""

    def __str__(self) -> str:
        times = sorted(self.milliseconds) or [math.nan]
        middle = times[len(times) // 2]
        line = f"sent {self.sent:4d}  ok {self.ok:4d}  failed {self.failed:3d}  fraud {self.fraud:3d}  p50 {middle:6.2f} ms"
        return f"{line}  {self.last_error}" if self.last_error else line


@dataclass(frozen=True)
class Reply:
    status: int
    body: dict[str, Any]
    request_id: str


class Client:
    """One kept-open HTTP connection to the model's infer path; reconnects when the server closes it."""

    def __init__(self, url: str, model: str, *, timeout_seconds: float = 10.0) -> None:
        self._address = urlsplit(url)
        self._path = f"{self._address.path.rstrip('/')}/v2/models/{model}/infer"
        self._timeout = timeout_seconds
        self._connection = self._connect()

    def send(self, record: dict[str, object]) -> Reply:
        """Raises OSError or http.client.HTTPException when there is no answer."""
        body = json.dumps({"dataframe_records": [record]}, allow_nan=False)
        try:
            answer, content = self._exchange(body)
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            # A server may close an idle connection at any time; a prediction may be asked for again.
            answer, content = self._exchange(body)
        decoded = json.loads(content) if content else {}
        return Reply(answer.status, decoded, answer.headers.get("X-Request-Id", ""))

    def _exchange(self, body: str) -> tuple[http.client.HTTPResponse, bytes]:
        try:
            self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            return answer, answer.read()
        except (OSError, http.client.HTTPException):
            self._reconnect()
            raise

    def _reconnect(self) -> None:
        self._connection.close()
        self._connection = self._connect()

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
        return kind(self._address.hostname or "127.0.0.1", self._address.port, timeout=self._timeout)


def records(frame: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Rows as JSON objects: missing values are null, times ISO 8601 text."""
    plain = frame.astype(object).where(frame.notna(), None)
    for record in plain.to_dict(orient="records"):
        yield {
            str(name): value.isoformat() if isinstance(value, pd.Timestamp) else value
            for name, value in record.items()
        }


def label_of(reply: Reply) -> bool:
    """True when the server's answer says fraud."""
    for output in reply.body.get("outputs", []):
        if output["name"] == "label":
            return str(output["data"][0]).lower() in ("true", "1")
    return False


def send_traffic(
    url: str,
    *,
    model: str = "payments",
    rate: float = 50.0,
    seconds: float | None = None,
    simulation: Simulation | None = None,
    first: int = LATER,
    labels: Path | None = None,
    report: Callable[[Second], None] = print,
    stopped: Callable[[], bool] = lambda: False,
) -> Second:
    """Sends `rate` payments a second until `seconds` have passed or `stopped()`; returns the totals.

    Calls `report` once a second. Requests are spaced by the clock: a slow answer delays none but its own
    connection's next, and the sender catches up afterwards.
    """
    if rate <= 0:
        raise ValueError("rate must be above 0 payments a second")
    client = Client(url, model)
    total, second = Second(), Second()
    began = time.monotonic()
    reported = began
    kept = labels.open("a", encoding="utf-8") if labels is not None else None
    try:
        for number, row in enumerate(_rows(simulation or Simulation(), first)):
            due = began + number / rate
            if seconds is not None and due - began >= seconds:
                break
            time.sleep(max(0.0, due - time.monotonic()))
            if stopped():
                break
            sent = time.monotonic()
            second.sent += 1
            try:
                reply = client.send({name: row[name] for name in FEATURES})
            except (OSError, http.client.HTTPException) as error:
                second.failed += 1
                second.last_error = f"{type(error).__name__}: {error}"
            else:
                second.milliseconds.append((time.monotonic() - sent) * 1000)
                if reply.status == http.HTTPStatus.OK:
                    second.ok += 1
                    second.fraud += label_of(reply)
                    if kept is not None:
                        kept.write(_label_line(row, reply.request_id))
                else:
                    second.failed += 1
                    second.last_error = f"{reply.status} {reply.body.get('error', '')}"
            if time.monotonic() - reported >= 1.0:
                report(second)
                _add(total, second)
                second = Second()
                reported = time.monotonic()
                if kept is not None:
                    kept.flush()
    finally:
        client.close()
        if kept is not None:
            kept.close()
    if second.sent:
        report(second)
        _add(total, second)
    return total


def _rows(simulation: Simulation, first: int) -> Iterator[dict[str, object]]:
    for frame in stream(simulation, first=first):
        yield from records(frame)


def _label_line(row: dict[str, object], request_id: str) -> str:
    keys = ("payment_id", "paid_at", "label_at", TARGET)
    return json.dumps({"request_id": request_id, **{key: row[key] for key in keys}}) + "\n"


def _add(total: Second, second: Second) -> None:
    total.sent += second.sent
    total.ok += second.ok
    total.failed += second.failed
    total.fraud += second.fraud
    total.milliseconds += second.milliseconds
    total.last_error = second.last_error or total.last_error


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Send simulated payments to a running server.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--model", default="payments")
    parser.add_argument("--rate", type=float, default=50.0, help="payments a second")
    parser.add_argument("--seconds", type=float, help="stop after so long; until Ctrl-C without")
    parser.add_argument("--labels", type=Path, help="append the late labels here, as JSON lines")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--amount-shift", type=float, default=0.0, help="drift: added to the logarithm of the amount"
    )
    parser.add_argument("--new-category", type=float, default=0.0, help="drift: share in an unknown category")
    parser.add_argument(
        "--country-mix", type=float, default=0.0, help="drift: how far the countries move, 0..1"
    )
    parser.add_argument(
        "--missing-rate", type=float, default=0.0, help="drift: share of values that go missing"
    )
    parser.add_argument("--concept", type=float, default=0.0, help="drift: how far fraud moves, 0..1")
    given = parser.parse_args(arguments)
    drift = Drift(
        amount_shift=given.amount_shift,
        new_category=given.new_category,
        country_mix=given.country_mix,
        missing_rate=given.missing_rate,
        concept=given.concept,
    )
    try:
        total = send_traffic(
            given.url,
            model=given.model,
            rate=given.rate,
            seconds=given.seconds,
            simulation=Simulation(seed=given.seed, drift=drift),
            labels=given.labels,
        )
    except KeyboardInterrupt:
        return 0
    return 0 if total.ok and not total.failed else 1


if __name__ == "__main__":
    raise SystemExit(main())
