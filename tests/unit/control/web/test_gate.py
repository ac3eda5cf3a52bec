"""Who gets in: keys, sessions, and the attacks that browsers carry (forged requests, DNS rebinding, stolen redirects)."""

import re
from typing import Any

import httpx
import pytest

from tests.unit.control.web.conftest import Client, Site

SCHEDULE = {
    "name": "nightly",
    "cron": "0 2 * * *",
    "work": {"type": "batch", "model": "churn", "input": "/in", "output": "/out/{date}/"},
}


def log_in(client: Client, secret: str, **form: str) -> httpx.Response:
    return client.post("/login", data={"key": secret, **form})


def token_of(client: Client) -> str:
    found = re.search(r'name="csrf-token" content="(\w+)"', client.get("/").text)
    assert found
    return found[1]


# Without keys.


def test_without_keys_one_may_look_and_change_nothing(site: Site) -> None:
    client = site.client()
    assert client.get("/").status_code == 200
    assert client.get("/api/v1/schedules").json() == []
    refused = client.post("/api/v1/schedules", json=SCHEDULE)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "fairway keys create NAME --scope admin" in refused.json()["error"]
    assert client.get("/login").headers["location"] == "/"


@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.7"])
def test_without_keys_a_name_that_is_not_this_machines_is_refused(site: Site, name: str) -> None:
    """DNS rebinding: a page of evil.example whose name suddenly leads here."""
    client = site.client(f"http://{name}:8090")
    assert client.get("/api/v1/models").status_code == 403
    assert client.get("/").status_code == 403
    for own in ("localhost", "127.0.0.1", "[::1]"):
        assert site.client(f"http://{own}:8090").get("/api/v1/models").status_code == 200


# Programs, by key.


def test_with_keys_a_key_is_needed_and_must_have_the_scope(site: Site) -> None:
    for name, scopes in (("admin", ("admin",)), ("looker", ("metrics",)), ("app", ("infer",))):
        site.key(name, *scopes)
    nobody = site.client().get("/api/v1/models")
    assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
    wrong = site.client()
    wrong.headers["x-api-key"] = "fw_000000000000_" + "x" * 43
    assert wrong.get("/api/v1/models").status_code == 401
    assert site.client(key="app").get("/api/v1/models").status_code == 403
    assert site.client(key="looker").get("/api/v1/models").status_code == 200
    assert site.client(key="looker").post("/api/v1/schedules", json=SCHEDULE).status_code == 403
    assert site.client(key="admin").post("/api/v1/schedules", json=SCHEDULE).status_code == 201
    assert site.client("http://control.example", key="looker").get("/api/v1/models").status_code == 200


def test_a_key_for_some_models_sees_and_changes_those(site: Site) -> None:
    site.key("all", "admin")
    site.key("some", "admin", models=("payments",))
    every, some = site.client(key="all"), site.client(key="some")
    every.post("/api/v1/schedules", json=SCHEDULE)
    assert [model["name"] for model in some.get("/api/v1/models").json()] == ["payments"]
    assert [run["run"] for run in some.get("/api/v1/batch/runs").json()] == ["payments-1"]
    assert some.get("/api/v1/schedules").json() == []
    for method, path in (
        ("GET", "/api/v1/schedules/nightly"),
        ("GET", "/api/v1/schedules/nightly/runs"),
        ("DELETE", "/api/v1/schedules/nightly"),
        ("POST", "/api/v1/schedules/nightly/pause"),
        ("POST", "/api/v1/schedules/nightly/run"),
        ("GET", "/api/v1/batch/runs/churn-1"),
    ):
        assert some.request(method, path).status_code == 403, path
    assert some.post("/api/v1/schedules", json=SCHEDULE).status_code == 403
    assert some.post("/api/v1/schedules", json=_for("payments")).status_code == 201
    assert "churn" not in some.get("/").text


def _for(model: str) -> dict[str, Any]:
    return {**SCHEDULE, "name": model, "work": {**SCHEDULE["work"], "model": model}}  # type: ignore[dict-item]


# People, by session.


def test_people_log_in_and_out(site: Site) -> None:
    site.key("ann", "metrics")
    client = site.client()
    away = client.get("/?model=a b")
    assert (away.status_code, away.headers["location"]) == (303, "/login?next=%2F%3Fmodel%3Da%2520b")
    assert 'name="key"' in client.get("/login").text
    entered = log_in(client, site.keys["ann"], next="/?model=a")
    assert (entered.status_code, entered.headers["location"]) == (303, "/?model=a")
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "max-age=600" in cookie
    assert "secure" not in cookie
    page = client.get("/")
    assert "ann" in page.text
    assert site.keys["ann"] not in page.text + cookie
    assert client.get("/api/v1/models").status_code == 200
    left = client.post("/logout", data={"csrf": token_of(client)})
    assert left.headers["location"] == "/login"
    assert client.get("/").status_code == 303


def test_over_tls_the_cookie_is_never_sent_in_the_clear(site: Site) -> None:
    site.key("ann", "metrics")
    assert "secure" in log_in(site.client("https://h"), site.keys["ann"]).headers["set-cookie"].lower()


@pytest.mark.parametrize("secret", ["", "fw_000000000000_" + "x" * 43, "'; drop table", "x" * 10_000])
def test_a_wrong_key_does_not_let_in_and_is_not_shown(site: Site, secret: str) -> None:
    site.key("ann", "metrics")
    refused = log_in(site.client(), secret)
    assert refused.status_code == 401
    assert "set-cookie" not in refused.headers
    assert not secret or secret not in refused.text


def test_a_key_that_may_not_look_does_not_let_in(site: Site) -> None:
    site.key("app", "infer")
    assert log_in(site.client(), site.keys["app"]).status_code == 403


def test_a_session_ends_with_its_time_and_at_once_with_its_key(site: Site) -> None:
    site.key("ann", "metrics")
    site.key("bob", "metrics")
    ann, bob = site.client(), site.client()
    log_in(ann, site.keys["ann"])
    log_in(bob, site.keys["bob"])
    site.revoke("bob")
    assert bob.get("/").status_code == 303
    assert bob.get("/api/v1/models").status_code == 401
    assert ann.get("/").status_code == 200
    site.now += 601
    assert ann.get("/").status_code == 303


@pytest.mark.parametrize("forge", [lambda cookie: cookie[:-4] + "AAAA", lambda cookie: "", lambda cookie: "x", lambda cookie: cookie.swapcase()])  # fmt: skip
def test_a_forged_cookie_is_none(site: Site, forge: Any) -> None:
    site.key("ann", "admin")
    client = site.client()
    log_in(client, site.keys["ann"])
    cookie = client.cookies["fairway_session"]
    other = site.client()
    other.cookies.set("fairway_session", forge(cookie))
    assert other.get("/api/v1/models").status_code == 401


def test_a_request_that_another_site_forges_changes_nothing(site: Site) -> None:
    """The browser sends the cookie with it; the form's token it cannot know."""
    site.key("ann", "admin")
    client = site.client()
    log_in(client, site.keys["ann"])
    token = token_of(client)
    good = {"x-csrf-token": token, "origin": "http://127.0.0.1:8090", "sec-fetch-site": "same-origin"}
    for headers in (
        {},
        {"x-csrf-token": "0" * 64},
        {**good, "origin": "https://evil.example"},
        {**good, "origin": "null"},
        {**good, "sec-fetch-site": "cross-site"},
        {**good, "sec-fetch-site": "same-site"},
    ):
        refused = client.post("/api/v1/schedules", json=SCHEDULE, headers=headers)
        assert refused.status_code == 403, headers
    assert site.store.schedules() == ()
    assert client.post("/api/v1/schedules", json=SCHEDULE, headers=good).status_code == 201
    other = site.client()
    log_in(other, site.keys["ann"])
    site.now += 1
    assert client.post("/logout", data={"csrf": "0" * 64}).status_code == 401


def test_another_site_cannot_log_somebody_in(site: Site) -> None:
    site.key("ann", "admin")
    refused = site.client().post(
        "/login", data={"key": site.keys["ann"]}, headers={"origin": "https://evil.example"}
    )
    assert refused.status_code == 403
    assert "set-cookie" not in refused.headers


@pytest.mark.parametrize("where", ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil", "javascript:alert(1)", "/a\nb", ""])  # fmt: skip
def test_logging_in_leads_nowhere_else(site: Site, where: str) -> None:
    site.key("ann", "metrics")
    assert log_in(site.client(), site.keys["ann"], next=where).headers["location"] == "/"


def test_every_answer_tells_browsers_to_be_careful(site: Site) -> None:
    client = site.client()
    for path in ("/", "/api/v1/models", "/static/control.css", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")
    assert "<script" not in client.get("/login?next=%22%3E%3Cscript%3E").text


def test_what_was_typed_is_written_into_pages_as_text(site: Site) -> None:
    site.key("ann", "metrics")
    page = site.client().get('/login?next="><script>alert(1)</script>')
    assert "<script>" not in page.text
