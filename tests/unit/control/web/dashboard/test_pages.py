"""Every page: with nothing, with much, with what is hostile; who may see and do what; what a form does."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec
import pytest

from fairway.control.web.dashboard.incidents import folded
from fairway.control.web.dashboard.model import told
from fairway.control.web.dashboard.pages import PAGES
from fairway.core.clock import utc_text
from fairway.core.incident import Entry, Finding, Window
from fairway.core.schedule import BatchWork, Schedule
from fairway.core.version import Change
from fairway.monitoring.watch.servers import Step
from tests.unit.control.web.conftest import Client, Site
from tests.unit.control.web.dashboard.seen_windows import EVIL, report, window

OF_A_MODEL = ("", "/drift", "/drift/amount", "/performance", "/quality", "/slices", "/route")


@pytest.fixture
def full(site: Site) -> Site:
    """`churn` has windows and an incident, and a schedule; `payments` has nothing."""
    site.windows.put([window(report(hours, columns=15)) for hours in range(1, 9)])
    _open(site, "churn")
    site.service.desk.add(
        Schedule(name="nightly", cron="0 2 * * *", work=BatchWork(model="churn", input="/in", output="/out")),
        who="ann",
    )
    site.key("ann", "admin")
    site.key("bob", "metrics")
    site.key("eve", "admin", models=("payments",))
    return site


def _open(site: Site, model: str) -> None:
    now = datetime.now(UTC)
    for hour in range(5, 0, -1):
        start, end = (utc_text(now - timedelta(hours=hour - more)) for more in (0, 1))
        finding = Finding(kind="drift", field="amount", effect=1.0, p_value=1e-9, text=f"amount {EVIL}")
        site.alerts.observe(
            [
                Window(
                    model=model,
                    digest="d",
                    version=2,
                    start=start,
                    end=end,
                    kinds=("drift",),
                    findings=(finding,),
                )
            ]
        )


def _incident(site: Site) -> str:
    return site.alerts.incidents()[0].id


def _log_in(site: Site, name: str) -> tuple[Client, str]:
    client = site.client()
    answer = client.post("/login", data={"key": site.keys[name]})
    assert answer.status_code == 303
    found = re.search(r'name="csrf-token" content="(\w+)"', client.get("/").text)
    assert found
    return client, found[1]


def test_every_page_is_shown_and_nothing_in_it_is_a_script(full: Site) -> None:
    client = full.client(key="ann")
    names = {
        "{incident}": _incident(full),
        "{schedule}": "nightly",
        "{model}": "churn",
        "{column:path}": "amount",
    }
    for path, _ in PAGES:
        if path == "/batch/{run}":
            continue  # a real run's report is needed: tests/e2e/test_dashboard.py
        for name, value in names.items():
            path = path.replace(name, value)
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text[-500:])
        assert EVIL not in answer.text, path
        assert "<script>" not in answer.text
        assert not re.search(r"\son\w+=|style=|javascript:", answer.text.replace("autocomplete", "")), path
        assert "default-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("range", ["latest", "day", "week", "month", "quarter", "year"])
def test_pages_of_any_time(full: Site, range: str) -> None:
    client = full.client(key="ann")
    for path in OF_A_MODEL:
        answer = client.get(f"/models/churn{path}?range={range}&version=2")
        assert answer.status_code == 200, path


def test_a_model_that_nobody_watched_has_pages_too(full: Site) -> None:
    for path in OF_A_MODEL:
        answer = full.client(key="ann").get(f"/models/payments{path}")
        assert answer.status_code == (404 if path == "/drift/amount" else 200), path
    assert "Not watched yet" in full.client(key="ann").get("/").text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models/nothing", 404), ("/models/churn?range=ever", 400), ("/models/churn?version=99", 404), ("/models/churn?version=x", 400),
        ("/models/churn?version=-1", 400), ("/models/churn/drift?page=0", 400), ("/models/churn/drift?window=1999", 404),
        ("/models/churn/drift/nothing", 404), ("/incidents?state=x", 400), ("/incidents/nothing", 404), ("/incidents?page=99", 400),
        ("/schedules/nothing", 404), ("/batch/nothing", 404), ("/models/churn/route?limit=9999999999", 400), ("/nowhere", 404),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said(full: Site, path: str, status: int) -> None:
    assert full.client(key="ann").get(path).status_code == status


def test_a_window_is_looked_at_by_its_start_and_columns_have_any_name(full: Site) -> None:
    client = full.client(key="ann")
    start = report(5).start
    page = client.get(f"/models/churn/drift?range=week&window={quote(start)}").text
    assert "500 rows" in page
    links = re.findall(r'href="([^"]+)">(Earlier|Later)<', page)
    assert [(name, client.get(link.replace("&amp;", "&")).status_code) for link, name in links] == [
        ("Earlier", 200),
        ("Later", 200),
    ]
    assert quote(report(6).start, safe="") in links[0][0].replace("/", "%2F")
    assert "Earlier</a>" not in client.get(f"/models/churn/drift?window={quote(report(8).start)}").text
    name = quote(f"country/{EVIL}", safe="")
    assert client.get(f"/models/churn/drift/{name}").status_code == 200


def test_errors_of_the_server_beside_it_are_shown(full: Site) -> None:
    client = full.client(key="ann")
    assert "Requests that failed" not in client.get("/models/churn").text
    steps = [
        Step(end=report(hours).end, requests=200.0, failed=5.0 * hours, saturation=0.5)
        for hours in range(300, 0, -1)
    ]
    full.windows.put_mark("server here of churn", msgspec.json.encode(steps).decode())
    for chosen in ("latest", "year"):
        page = client.get(f"/models/churn?range={chosen}").text
        assert "Requests that failed" in page
        assert '<td class="n">2.5%</td>' in page
    full.windows.put_mark("server here of churn", "[{}]")
    assert client.get("/models/churn").status_code == 200


def test_drift_is_paged(full: Site) -> None:
    client = full.client(key="ann")
    first, second = (client.get(f"/models/churn/drift?page={n}").text for n in (1, 2))
    assert (first.count("<article"), second.count("<article")) == (12, 3)
    assert client.get("/models/churn/drift?page=99").text.count("<article") == 3


def test_a_summary_that_cannot_be_read_is_passed_over(full: Site) -> None:
    full.windows.put([msgspec.structs.replace(window(report(1)), summary=b"{", report=b"{")])
    for path in OF_A_MODEL:
        assert full.client(key="ann").get(f"/models/churn{path}").status_code == 200


def test_a_key_sees_and_changes_its_own_models_only(full: Site) -> None:
    eve = full.client(key="eve")
    assert ">churn<" not in eve.get("/").text
    assert "churn" not in eve.get("/incidents?state=all").text
    for path in (
        *(f"/models/churn{tab}" for tab in OF_A_MODEL),
        f"/incidents/{_incident(full)}",
        "/schedules/nightly",
        "/batch/churn-1",
        "/incidents?model=churn",
    ):
        assert eve.get(path).status_code == 403, path
    client, token = _log_in(full, "eve")
    for path in (
        f"/incidents/{_incident(full)}/resolve",
        "/schedules/nightly/pause",
        "/schedules/nightly/run",
    ):
        assert client.post(path, data={"csrf": token}).status_code == 403, path
    silence = full.alerts.silence(utc_text(datetime.now(UTC) + timedelta(hours=1)), who="ann", model="churn")
    assert client.post(f"/silences/{silence.id}/end", data={"csrf": token}).status_code == 403
    assert full.alerts.incidents()[0].state == "open"
    assert not full.service.desk.show("nightly").paused


def test_who_may_look_is_shown_no_forms_and_may_not_act(full: Site) -> None:
    client, token = _log_in(full, "bob")
    path = f"/incidents/{_incident(full)}"
    assert "Acknowledge</button>" not in client.get(path).text
    assert "scope <code>admin" in client.get(path).text
    assert client.post(f"{path}/acknowledge", data={"csrf": token}).status_code == 403
    assert "Pause</button>" not in client.get("/schedules/nightly").text


def test_a_form_needs_its_token(full: Site) -> None:
    client, token = _log_in(full, "ann")
    path = f"/incidents/{_incident(full)}/acknowledge"
    for wrong in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": token[:-1]}):
        assert client.post(path, data=wrong).status_code == 403
    assert full.alerts.incidents()[0].acknowledged is None
    assert full.client().post(path, data={"csrf": token}).status_code in (401, 403)
    assert client.post(path, data={"csrf": token, "why": "x" * 20_000}).status_code == 413


def test_what_people_do_about_an_incident(full: Site) -> None:
    client, token = _log_in(full, "ann")
    path = f"/incidents/{_incident(full)}"
    answer = client.post(f"{path}/acknowledge", data={"csrf": token, "why": "mine"})
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    assert full.alerts.incidents()[0].acknowledged.who == "ann"  # type: ignore[union-attr]
    assert client.post(f"{path}/silence", data={"csrf": token, "for": "2h"}).status_code == 303
    [silence] = full.alerts.silences()
    assert "Silenced until" in client.get(path).text
    assert client.post(f"{path}/silence", data={"csrf": token, "for": "ever"}).status_code == 400
    assert client.post(f"/silences/{silence.id}/end", data={"csrf": token}).headers["location"] == path
    assert client.post(f"/silences/{silence.id}/end", data={"csrf": token}).status_code == 404
    assert client.post(f"{path}/resolve", data={"csrf": token}).status_code == 303
    assert client.post(f"{path}/resolve", data={"csrf": token}).status_code == 409
    assert "Resolved" in client.get(path).text


def test_what_people_do_about_a_schedule(full: Site) -> None:
    client, token = _log_in(full, "ann")
    assert (
        client.post("/schedules/nightly/pause", data={"csrf": token}).headers["location"]
        == "/schedules/nightly"
    )
    assert "Paused" in client.get("/schedules").text
    client.post("/schedules/nightly/resume", data={"csrf": token})
    client.post("/schedules/nightly/run", data={"csrf": token})
    [run] = full.service.desk.history("nightly")
    assert (run.kind, run.who) == ("manual", "ann")
    assert "manual" in client.get("/schedules/nightly").text


def test_a_page_that_fails_is_a_page_and_tells_nothing(full: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full.alerts, "incidents", lambda **_: 1 / 0)
    answer = full.client(key="ann").get("/")
    assert answer.status_code == 500
    assert "Something went wrong" in answer.text
    assert "division" not in answer.text


def test_without_a_session_a_page_leads_to_the_log_in_and_back(full: Site) -> None:
    answer = full.client().get("/models/churn/drift?range=week")
    assert answer.headers["location"] == "/login?next=%2Fmodels%2Fchurn%2Fdrift%3Frange%3Dweek"


def test_updates_that_follow_each_other_are_told_once() -> None:
    entries = [
        Entry(when=str(i), what=what)
        for i, what in enumerate(("opened", "updated", "updated", "acknowledged", "updated"))
    ]  # type: ignore[arg-type]
    assert [(e.what, e.when, n) for e, n in folded(entries)] == [
        ("updated", "4", 1), ("acknowledged", "3", 1), ("updated", "2", 2), ("opened", "0", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "before", "after", "restores", "text"),
    [
        ("version", None, '{"version": 3}', None, "version 3 was registered"),
        ("version", None, "3", None, "version 3 was registered"),
        ("alias:champion", "1", "2", None, "alias champion names version 2, before it version 1"),
        ("alias:champion", "1", None, None, "alias champion was removed from version 1"),
        ("route", None, '{"model":"m","arms":[{"version":2,"weight":0.9},{"version":3,"weight":0.1}],"shadows":[4]}', None,
         "live traffic became version 2 (90%), version 3 (10%); in shadow: 4"),
        ("route", None, '{"model":"m","arms":[{"version":1}]}', 7, "live traffic went back to version 1"),
        ("route", None, "nonsense", None, "live traffic became nonsense"),
    ],
)  # fmt: skip
def test_changes_in_words(
    what: str, before: str | None, after: str | None, restores: int | None, text: str
) -> None:
    change = Change(
        sequence=1,
        model="m",
        what=what,
        before=before,
        after=after,
        who="",
        why="",
        when="",
        restores=restores,
    )
    assert told(change) == text
