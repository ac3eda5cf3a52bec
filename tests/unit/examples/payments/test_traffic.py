"""The traffic sender, against a small HTTP server that answers what the test wants."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from examples.payments.simulate import FEATURES, Simulation, payments
from examples.payments.traffic import LATER, Client, Second, label_of, records, send_traffic


class Server(ThreadingHTTPServer):
    """Answers every third payment "fraud"; with status `status`; closes the connection after each if `closing`."""

    status = 200
    closing = False

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict]] = []
        self.connections: set[tuple[str, int]] = set()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body))
        self.server.connections.add(self.client_address)
        number = len(self.server.seen)
        answer = {"outputs": [{"name": "label", "data": [number % 3 == 0]}], "error": "told to"}
        content = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Request-Id", f"r{number}")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = self.server.closing

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def send(server: Server, rows: int, **options) -> Second:
    return send_traffic(
        server.url, rate=2000, stopped=lambda: len(server.seen) >= rows, report=lambda _: None, **options
    )


def test_records_hold_json_values_only_and_null_for_missing() -> None:
    rows = list(records(payments(Simulation(), rows=400)))
    text = json.dumps(rows, allow_nan=False)
    assert json.loads(text) == rows
    assert rows[0]["paid_at"].startswith("2026-01-01T")
    assert any(row["card_age_days"] is None for row in rows)
    assert all(row["card_age_days"] is None or isinstance(row["card_age_days"], int) for row in rows)
    assert {row["abroad"] for row in rows} == {True, False, None}


def test_each_payment_is_one_request_of_the_features_over_one_connection(server: Server) -> None:
    total = send(server, 12)
    assert (total.sent, total.ok, total.failed, total.fraud) == (12, 12, 0, 4)
    assert len(server.connections) == 1
    path, body = server.seen[0]
    assert path == "/v2/models/payments/infer"
    [record] = body["dataframe_records"]
    assert tuple(record) == FEATURES
    expected = payments(Simulation(), first=LATER, rows=1)
    assert record["amount"] == expected["amount"][0]


def test_labels_are_kept_with_the_request_they_belong_to(server: Server, tmp_path: Path) -> None:
    send(server, 5, labels=tmp_path / "labels.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [line["request_id"] for line in lines] == ["r1", "r2", "r3", "r4", "r5"]
    assert all(set(line) == {"request_id", "payment_id", "paid_at", "label_at", "is_fraud"} for line in lines)
    assert all(line["label_at"] > line["paid_at"] for line in lines)


def test_refusals_are_counted_with_the_servers_words(server: Server) -> None:
    server.status = 400
    total = send(server, 3)
    assert (total.ok, total.failed) == (0, 3)
    assert total.last_error == "400 told to"
    assert "400 told to" in str(total)


def test_a_connection_the_server_closes_is_opened_again(server: Server) -> None:
    server.closing = True
    client = Client(server.url, "payments")
    statuses = [client.send({}).status for _ in range(3)]
    client.close()
    assert statuses == [200, 200, 200]
    assert len(server.connections) == 3


def test_no_server_at_all_is_counted_not_raised() -> None:
    tries = iter([False, False, False, True])
    total = send_traffic("http://127.0.0.1:9", rate=1000, report=lambda _: None, stopped=lambda: next(tries))
    assert (total.sent, total.failed) == (3, 3)
    assert "Connection" in total.last_error


@pytest.mark.parametrize(("data", "fraud"), [([True], True), (["True"], True), ([1], True), ([False], False)])
def test_the_label_is_read_whatever_its_type(data: list, fraud: bool, server: Server) -> None:
    client = Client(server.url, "payments")
    reply = client.send({})
    client.close()
    reply.body["outputs"][0]["data"] = data
    assert label_of(reply) is fraud


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="rate"):
        send_traffic("http://127.0.0.1:9", rate=0)
