"""Alerts with real processes that are killed, a real Alertmanager, and a real Prometheus over a real server."""

import json
import random
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from fairway.app.alerts import HomeAlerts, open_alerts
from fairway.app.library import deploy
from fairway.app.monitor_files import prometheus_rules, server_codes
from fairway.core.clock import after, utc_now
from fairway.core.incident import Finding, Window
from fairway.monitoring.grafana import dashboards
from fairway.security.webhooks import new_secret, verify
from fairway.serving.metrics import described_metrics
from tests.e2e.servers import numeric_data, numeric_model, serving
from tests.receivers import alertmanager, fetched, program, receiving, running
from tests.services import Postgres, free_port

pytestmark = pytest.mark.e2e


def write_settings(home: Path, *channels: str, registry: str = "") -> None:
    home.mkdir(parents=True, exist_ok=True)
    fast = "[alerts]\nretry_first_seconds = 0.02\nretry_longest_seconds = 0.1\nremind_hours = 0\nresolve_after = 1\n"
    (home / "fairway.toml").write_text("\n".join([registry, fast, *channels]))


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to this in time"
        time.sleep(0.05)


class Life:
    """Windows of models, an hour each."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.now = after(utc_now(), -1000 * 3600)

    def look(self, model: str, *findings: Finding, place: HomeAlerts | None = None) -> list[str]:
        self.now = after(self.now, 3600)
        window = Window(
            model=model,
            digest="sha256:1",
            version=1,
            start=after(self.now, -3600),
            end=self.now,
            kinds=("drift",),
            findings=findings,
        )
        with nullcontext(place) if place is not None else open_alerts(self.home) as opened:
            return [event.kind for event in opened.alerts.observe([window])]


@contextmanager
def sender(home: Path) -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("sending.py")
    process = subprocess.Popen([sys.executable, script, home], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "sending\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_senders_that_are_killed_again_and_again_lose_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every message arrives, under one id, and of each incident in order; some twice, where the kill came between the
    receiver's answer and its note."""
    registry = ""
    if kind == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        registry = f'[registry]\ndatabase_url = "{postgres.new_database()}"\n'
    secret = new_secret()
    (tmp_path / "secret").write_text(secret)
    home = tmp_path / "home"
    chance = random.Random(5)
    with receiving() as receiver:
        hook = f'[alerts.channels.hook]\nkind = "webhook"\nurl = "{receiver.url}"\nsecret = "file:{tmp_path}/secret"\n'
        write_settings(home, f"{hook}timeout_seconds = 0.5\n", registry=registry)
        life, wanted = Life(home), []
        with open_alerts(home) as place:
            for number in range(30):  # opened, resolved and opened again, ten models
                model = f"m{number % 10}"
                findings = () if number // 10 == 1 else (Finding(kind="drift", field="a"),)
                wanted += [(model, kind) for kind in life.look(model, *findings, place=place)]
            assert len(wanted) == 30
            with sender(home):
                for _ in range(2):
                    with sender(home) as one:
                        heard = len(receiver.bodies)
                        until(lambda heard=heard: len(receiver.bodies) > min(heard + 2, 29), 30)
                        time.sleep(chance.uniform(0, 0.02))
                        one.kill()
                until(lambda: not place.alerts.messages(limit=1))
        bodies = [json.loads(body) for body in receiver.bodies]
        for headers, body in zip(receiver.headers, receiver.bodies, strict=True):
            verify(secret, headers, body)
    first: dict[str, dict[str, Any]] = {}
    for body in bodies:
        first.setdefault(body["id"], body)
    assert len(first) == 30
    for model in {model for model, _ in wanted}:
        told = [body["type"] for body in first.values() if body["data"]["incident"]["model"] == model]
        assert told == [f"incident.{kind}" for name, kind in wanted if name == model]


def test_a_process_that_is_killed_while_it_waits_for_an_answer(tmp_path: Path) -> None:
    """The receiver has it, the outbox does not know: it is sent again under the same id."""
    home = tmp_path / "home"
    with receiving() as receiver:
        write_settings(
            home, f'[alerts.channels.hook]\nkind = "webhook"\nurl = "{receiver.url}"\ntimeout_seconds = 0.5\n'
        )
        receiver.status = 500
        Life(home).look("m", Finding(kind="drift"))
        with sender(home) as process:
            until(lambda: receiver.bodies)
            process.kill()
        receiver.status = 200
        with sender(home), open_alerts(home) as place:
            until(lambda: not place.alerts.messages())
    assert len(receiver.bodies) >= 2
    assert len({json.loads(body)["id"] for body in receiver.bodies}) == 1


# Alertmanager


def test_alertmanager_has_what_is_open_also_after_it_forgot(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    life = Life(home)
    with alertmanager(tmp_path) as url:
        write_settings(
            home, f'[alerts.channels.am]\nkind = "alertmanager"\nurl = "{url}"\nlabels = {{ team = "ml" }}\n'
        )

        def active() -> list[tuple[str, str]]:
            found = fetched(f"{url}/api/v2/alerts?active=true")
            return sorted((alert["labels"]["model"], alert["labels"]["severity"]) for alert in found)

        def deliver() -> None:
            with open_alerts(home) as place:
                place.sender().deliver("am")

        life.look("payments", Finding(kind="drift", field="amount"))
        life.look("fraud", Finding(kind="drift", field='a <b> "c"\n\\ ünïcode'))
        deliver()
        assert active() == [("fraud", "warning"), ("payments", "warning")]
        (alert,) = fetched(f"{url}/api/v2/alerts?filter=" + urllib.parse.quote('model="payments"'))
        assert alert["labels"]["team"] == "ml"
        assert alert["annotations"]["summary"] == "[warning] payments:1: drift in amount"
        life.look("payments", Finding(kind="drift", field="amount", severity="critical"))
        deliver()
        until(lambda: active() == [("fraud", "warning"), ("payments", "critical")])
        life.look("fraud")
        deliver()
        until(lambda: active() == [("payments", "critical")])
    (tmp_path / "again").mkdir()
    with alertmanager(tmp_path / "again") as url:
        write_settings(home, f'[alerts.channels.am]\nkind = "alertmanager"\nurl = "{url}"\n')
        with open_alerts(home) as place:
            place.sender().refresh("am")
        assert active() == [("payments", "critical")]


# Prometheus


def test_dashboards_and_rules_over_a_real_server(tmp_path: Path) -> None:
    """Every query of every panel runs, and what is counted is shown; the rules are loaded and none fires."""
    home = tmp_path / "home"
    frame = numeric_data()
    deploy(numeric_model(frame), data=frame, target="y", name="numbers", home=home)
    port = free_port()
    (tmp_path / "rules.yml").write_text(prometheus_rules("fairway"))
    with serving(home) as server:
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "200ms"},
            "rule_files": [str(tmp_path / "rules.yml")],
            "scrape_configs": [{"job_name": "fairway", "static_configs": [{"targets": [server.address]}]}],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        command = [
            program("prometheus"),
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        url = f"http://127.0.0.1:{port}"
        with running(command, f"{url}/-/ready", tmp_path / "prometheus.log"):

            def ask(expression: str) -> list[Any]:
                for name, value in (("$__rate_interval", "1m"), ("$model", ".*"), ("$version", ".*")):
                    expression = expression.replace(name, value)
                answer = fetched(f"{url}/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
                assert answer["status"] == "success"
                return list(answer["data"]["result"])

            predict(server)
            until(lambda: ask("fairway_requests_total"))
            predict(server)
            total = 'sum(rate(fairway_requests_total{code="ok"}[1m])) > 0'
            until(lambda: ask(total))
            found = {
                f"{name}: {panel['title']}": [ask(target["expr"]) for target in panel["targets"]]
                for name, dashboard in dashboards(described_metrics(), server_codes()).items()
                for panel in dashboard["panels"]
            }
            shown = {title for title, answers in found.items() if any(answers)}
            groups = fetched(f"{url}/api/v1/rules")["data"]["groups"]
            rules = {rule["name"]: (rule["health"], rule["state"]) for rule in groups[0]["rules"]}
    quiet = {
        "fairway-overview.json: Requests that wait",
        "fairway-model.json: Requests that wait",
        "fairway-overview.json: Rows that did not reach the prediction log",
        "fairway-overview.json: Refused and failed, by reason",
        "fairway-overview.json: Reloads that failed",
        "fairway-model.json: Refused and failed, by reason",
        "fairway-model.json: Values that broke the contract",
        "fairway-model.json: Answers from the response cache",
        "fairway-model.json: Nodes of a pipeline, seconds a second",
    }
    assert set(found) - shown <= quiet
    assert rules
    # A busy machine may miss a scrape, which only waits to become an alert.
    assert all(health == "ok" and state != "firing" for health, state in rules.values()), rules


def predict(server: Any) -> None:
    for _ in range(5):
        status, _, answer = server.post(
            {"inputs": [_tensor("a"), _tensor("b"), _tensor("c")]}, "/v2/models/numbers/infer"
        )
        assert status == 200, answer


def _tensor(name: str) -> dict[str, Any]:
    return {"name": name, "shape": [1], "datatype": "FP64", "data": [1.0]}
