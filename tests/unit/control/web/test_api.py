"""The admin API: what it does, what it says is wrong, and its description."""

from typing import Any

import pytest
from openapi_spec_validator import validate

from fairway.control.web.api import ROUTES
from tests.unit.control.web.conftest import Client, Site

SCHEDULE: dict[str, Any] = {
    "name": "nightly",
    "cron": "0 2 * * *",
    "time_zone": "Europe/Berlin",
    "work": {
        "type": "batch",
        "model": "churn@champion",
        "input": "postgresql://ann:secret@db/crm?table=customers&key=id",
        "output": "/out/{date}/",
    },
}
ANSWERS = {
    "name": "a",
    "cron": "@daily",
    "work": {"type": "precompute", "model": "churn", "files": "/f", "key": "id"},
}


@pytest.fixture
def client(site: Site) -> Client:
    site.key("ann", "admin")
    return site.client(key="ann")


def test_a_schedule_from_its_making_to_its_end(client: Client, site: Site) -> None:
    made = client.post("/api/v1/schedules", json=SCHEDULE)
    assert made.status_code == 201
    body = made.json()
    assert body["schedule"]["changed_by"] == "ann"
    assert body["next"].endswith("00:00.000000Z")
    assert not body["paused"]
    assert client.get("/api/v1/schedules").json() == [body]
    assert client.get("/api/v1/schedules/nightly").json() == body
    assert client.post("/api/v1/schedules/nightly/pause").json() == {**body, "paused": True, "next": ""}
    resumed = client.post("/api/v1/schedules/nightly/resume").json()
    assert resumed["next"] == body["next"]
    run = client.post("/api/v1/schedules/nightly/run")
    assert run.status_code == 202
    assert (run.json()["kind"], run.json()["state"], run.json()["who"]) == ("manual", "waiting", "ann")
    assert client.get("/api/v1/schedules/nightly/runs").json() == [run.json()]
    assert client.get("/api/v1/schedule-runs?limit=1").json() == [run.json()]
    gone = client.request("DELETE", "/api/v1/schedules/nightly")
    assert (gone.status_code, gone.content) == (204, b"")
    assert client.get("/api/v1/schedules/nightly").status_code == 404


def test_answers_may_be_computed_ahead_by_schedule(client: Client) -> None:
    assert client.post("/api/v1/schedules", json=ANSWERS).json()["schedule"]["work"]["type"] == "precompute"


def test_passwords_are_not_shown(client: Client, site: Site) -> None:
    client.post("/api/v1/schedules", json=SCHEDULE)
    assert "secret" not in client.get("/api/v1/schedules").text
    assert "ann:***@db" in client.get("/api/v1/schedules/nightly").text
    assert "secret" in site.store.schedule("nightly").schedule.work.input  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({**SCHEDULE, "cron": "0 0 31 2 *"}, 400, "is never due"),
        ({**SCHEDULE, "time_zone": "Mars"}, 400, "is not a time zone"),
        ({**SCHEDULE, "source": "fairway.toml"}, 400, "is made in that file"),
        ({**SCHEDULE, "work": {**SCHEDULE["work"], "model": "nothing"}}, 404, "no model 'nothing'"),
        ({**SCHEDULE, "work": {**SCHEDULE["work"], "output": "/out/{when}"}}, 400, "is not a placeholder"),
        ({"name": "x"}, 400, "cron"),
        ({**SCHEDULE, "work": {"type": "shell", "command": "rm"}}, 400, "Invalid value"),
        ({**SCHEDULE, "retries": "many"}, 400, "retries"),
        ([], 400, "Expected `object`"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(client: Client, body: Any, status: int, says: str) -> None:
    refused = client.post("/api/v1/schedules", json=body)
    assert refused.status_code == status
    assert says in refused.text
    assert refused.json()["request_id"]
    assert client.get("/api/v1/schedules").json() == []


def test_what_is_there_or_is_not_is_said(client: Client) -> None:
    client.post("/api/v1/schedules", json=SCHEDULE)
    assert client.post("/api/v1/schedules", json=SCHEDULE).status_code == 409
    for method, path in (
        ("GET", "/api/v1/schedules/x"),
        ("POST", "/api/v1/schedules/x/pause"),
        ("POST", "/api/v1/schedules/x/run"),
        ("DELETE", "/api/v1/schedules/x"),
        ("GET", "/api/v1/batch/runs/x"),
    ):
        assert client.request(method, path).status_code == 404, path
    refused = client.request("PUT", "/api/v1/schedules")
    assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
    assert refused.headers["allow"]
    nothing = client.get("/api/v1/nothing")
    assert (nothing.status_code, nothing.json()["code"]) == (404, "no_such_path")
    for wrong in ("0", "-1", "x", "1001", "9" * 30):
        assert client.get(f"/api/v1/schedules/nightly/runs?limit={wrong}").status_code == 400


def test_bodies_that_are_too_large_or_not_json_are_refused(client: Client) -> None:
    large = client.post("/api/v1/schedules", content=b" " * (1024 * 1024 + 1))
    assert (large.status_code, large.json()["code"]) == (413, "payload_too_large")
    assert client.post("/api/v1/schedules", content=b"{").status_code == 400
    assert client.post("/api/v1/schedules", content=b"\xff").status_code == 400


def test_batch_runs_models_and_the_process_itself_are_shown(client: Client) -> None:
    assert [run["run"] for run in client.get("/api/v1/batch/runs").json()] == ["churn-1", "payments-1"]
    told = client.get("/api/v1/batch/runs/churn-1").json()
    assert (told["run"]["run"], told["run"]["model"], told["report"]) == ("churn-1", "churn", {"rows": 1})
    assert [model["name"] for model in client.get("/api/v1/models").json()] == ["churn", "payments"]
    state = client.get("/api/v1/control").json()
    assert (state["leads"], state["leader"], state["jobs"][0]["name"]) == (True, "here", "j")


def test_health_is_for_everybody_and_tells_nothing_more(site: Site) -> None:
    site.key("ann", "admin")
    client = site.client()
    assert client.get("/health").json() == {"status": "ok"}
    site.trouble = "postgresql://db is away"
    away = client.get("/health")
    assert away.status_code == 503
    assert "postgresql" not in away.text


def test_what_nobody_expected_is_not_described_to_the_caller(
    client: Client, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> Any:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(site.service.desk, "list", fails)
    answer = client.get("/api/v1/schedules")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"] in caplog.text


def test_the_description_is_valid_and_has_every_route(client: Client) -> None:
    described = client.get("/openapi.json").json()
    validate(described)
    for entry in ROUTES:
        assert entry.method.lower() in described["paths"][entry.path]
    assert "BatchWork" in described["components"]["schemas"]


def test_pages_show_models_and_static_files_come_from_the_package(client: Client, site: Site) -> None:
    page = client.get("/").text
    assert "churn" in page
    assert "version 2" in page
    assert "http://" not in page.replace("http://127.0.0.1", "")
    assert client.get("/static/control.css").status_code == 200
    assert client.get("/static/../app.py").status_code == 404
    nothing = client.get("/nothing")
    assert nothing.status_code == 404
    assert "there is nothing at /nothing." in nothing.text
    assert "Not possible" in nothing.text
    site.trouble = "The registry is away."
    assert "The registry is away." in client.get("/").text
