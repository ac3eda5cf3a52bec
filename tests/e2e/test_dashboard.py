"""The dashboard in a real browser, on what a server logged, a monitor saw and a batch run wrote: every page, by keyboard, on a
phone, in the dark, while things change."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from fairway.app.batch import run_batch
from fairway.core.settings import RegistrySettings
from fairway.registry.registry import open_registry
from fairway.security.keys import new_key
from tests.e2e.controlling import Control, controlling
from tests.e2e.servers import MIXED, records, serving, visits

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
WATCHING = {
    "FAIRWAY_MONITORING_WINDOW_SECONDS": "1",
    "FAIRWAY_MONITORING_INTERVAL_SECONDS": "0.2",
    "FAIRWAY_MONITORING_GRACE_SECONDS": "0.5",
    "FAIRWAY_MONITORING_MIN_ROWS": "60",
    "FAIRWAY_MONITORING_MIN_LABELS": "30",
    "FAIRWAY_MONITORING_LONGEST_SECONDS": "4",
}


@dataclass(frozen=True)
class Site:
    """`admin` may change everything, `reader` may look at the model line alone."""

    control: Control
    admin: str
    reader: str

    @property
    def url(self) -> str:
        return f"http://{self.control.address}"


@pytest.fixture(scope="module")
def site(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("watched") / "home"
    shutil.copytree(home, place, ignore=shutil.ignore_patterns("log", "server-*"))
    secrets = []
    with open_registry(place, RegistrySettings()) as registry:
        for name, scopes, models in (
            ("ann", ("admin", "metrics", "infer", "feedback"), ()),
            ("bob", ("metrics",), ("line",)),
        ):
            key, secret = new_key(name, scopes=scopes, models=models, now=datetime.now(UTC))
            registry.add_key(key, who="tests", why="tests")
            secrets.append(secret)
    rows = place.parent / "rows.parquet"
    visits(40).drop(columns="bought").to_parquet(rows)
    run_batch("shop", rows, place.parent / "scored.parquet", home=place)
    (place / "fairway.toml").write_text('[models.shop]\nslices = ["country"]\nprotected = ["country"]\n')
    with controlling(place, environ=WATCHING) as control:
        _schedule(control, rows, secrets[0])
        _send(place, secrets[0])
        _await_windows(control, secrets[0])
        yield Site(control, *secrets)


def _schedule(control: Control, rows: Path, key: str) -> None:
    work = {"type": "batch", "model": "shop", "input": str(rows), "output": str(rows.parent / "{date}")}
    body = {"name": "nightly", "cron": "0 2 * * *", "work": work}
    status, told = control.ask("/api/v1/schedules", "POST", body, key=key)
    assert status == 201, told


def _send(place: Path, key: str) -> None:
    """Traffic as the model was trained on, then amounts ten times as large; labels of all of it."""
    with serving(place, "--no-control") as server:
        for turn in range(6):
            frame = visits(80, seed=20 + turn)
            if turn > 1:
                frame["amount"] *= 10
            told = []
            for row, label in zip(records(frame[MIXED]), frame["bought"], strict=True):
                identity = f"r{turn}-{len(told)}"
                status, _, body = server.post(
                    {"dataframe_records": [row]},
                    "/invocations",
                    x_api_key=key,
                    x_fairway_model="shop",
                    x_request_id=identity,
                )
                assert status == 200, body
                told.append({"model": "shop", "request_id": identity, "label": int(label)})
            status, _, body = server.post(told, "/feedback", x_api_key=key)
            assert status in (200, 202), body
            time.sleep(0.6)


def _await_windows(control: Control, key: str) -> None:
    """Until windows were looked at and an incident has come of it."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        slices, incidents = (control.ask(path, key=key)[1] for path in ("/models/shop/slices", "/incidents"))
        if b"Fairness by country" in slices and b'href="/incidents/' in incidents:
            return
        time.sleep(0.5)
    raise AssertionError(control.errors.read_text()[-4000:])


def _page(browser: Browser, site: Site, key: str, **options: object) -> Page:
    """Logged in; whatever it complains about, and whatever it asks of anybody else, fails the test."""
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    told: list[str] = []
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("console", lambda said: told.append(said.text) if said.type in ("error", "warning") else None)
    page.on(
        "request", lambda asked: None if asked.url.startswith((site.url, "data:")) else told.append(asked.url)
    )
    page.told = told  # type: ignore[attr-defined]
    page.goto(site.url)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Models", level=1)).to_be_visible()
    return page


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    page = _page(browser, site, site.admin)
    yield page
    assert not page.told  # type: ignore[attr-defined]
    page.context.close()


PAGES = (
    "/", "/models/shop", "/models/shop/drift", "/models/shop/drift/amount", "/models/shop/performance", "/models/shop/quality",
    "/models/shop/slices", "/models/shop/route", "/models/line", "/incidents?state=all", "{incident}", "/schedules",
    "/schedules/nightly", "/batch", "{batch}", "/process",
)  # fmt: skip


def _first(page: Page, site: Site, path: str, pattern: str) -> str:
    page.goto(site.url + path)
    links = page.locator("main a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    return next(link for link in links if re.fullmatch(pattern, link))


def _paths(page: Page, site: Site) -> list[str]:
    incident = _first(page, site, "/incidents?state=all", r"/incidents/\w+")
    batch = _first(page, site, "/batch", r"/batch/[\w.-]+")
    return [path.format(incident=incident, batch=batch) for path in PAGES]


def test_a_person_goes_from_the_overview_to_the_cause(page: Page, site: Site) -> None:
    page.goto(site.url)
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="shop", exact=True)).first
    expect(row).to_contain_text("1 open")
    page.get_by_role("link", name="shop", exact=True).click()
    expect(page.get_by_role("heading", name="shop", level=1)).to_be_visible()
    expect(page.locator("#chart-1 canvas")).to_be_visible()
    expect(page.get_by_role("heading", name="Versions")).to_be_visible()
    page.get_by_label("shop", exact=True).get_by_role("link", name="Drift").click()
    expect(page.locator("article h2").first).not_to_be_empty()
    page.locator("article").get_by_role("link", name="amount").click()
    expect(page.get_by_role("heading", name="amount", level=2)).to_be_visible()
    expect(page.locator("svg.histogram .reference")).to_be_visible()
    page.get_by_text("Figures of amount").click()
    expect(page.get_by_role("region", name="Figures of amount").get_by_role("row")).not_to_have_count(1)
    page.get_by_label("shop", exact=True).get_by_role("link", name="Performance").click()
    expect(page.get_by_role("row").filter(has_text="ROC AUC").first).to_be_visible()
    expect(page.locator(".plot canvas").first).to_be_visible()
    page.get_by_label("shop", exact=True).get_by_role("link", name="Slices").click()
    expect(page.get_by_role("heading", name="Fairness by country")).to_be_visible()
    page.get_by_label("shop", exact=True).get_by_role("link", name="Data quality").click()
    expect(page.get_by_role("heading", name="Missing values")).to_be_visible()
    page.get_by_label("shop", exact=True).get_by_role("link", name="Route").click()
    expect(page.get_by_text("live traffic became version 2")).to_be_visible()


def test_every_page_is_sound_in_light_and_dark(page: Page, site: Site, browser: Browser) -> None:
    """axe-core finds nothing on any page: contrast, names, landmarks, tables."""
    paths = _paths(page, site)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        for path in paths:
            page.goto(site.url + path)
            expect(page.locator("html")).to_have_attribute("data-theme", theme)
            page.evaluate(f"() => {{ {AXE} }}")
            options = "{runOnly: ['color-contrast']}" if theme == "dark" else "{}"
            found = page.evaluate(f"axe.run(document, {options}).then(r => r.violations)")
            said = [
                (rule["id"], rule["nodes"][0]["html"][:200], rule["nodes"][0].get("failureSummary"))
                for rule in found
            ]
            assert not said, f"{path} in {theme}: {json.dumps(said, indent=1)}"


def test_no_page_is_wider_than_a_small_phone(page: Page, site: Site) -> None:
    paths = _paths(page, site)
    page.set_viewport_size({"width": 360, "height": 740})
    for path in paths:
        page.goto(site.url + path)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"{path} is {width} wide"


def test_an_incident_is_acknowledged_silenced_and_resolved(page: Page, site: Site) -> None:
    page.goto(site.url + _first(page, site, "/incidents", r"/incidents/\w+"))
    expect(page.get_by_role("heading", name="Likeliest causes")).to_be_visible()
    expect(page.locator(".causes li").first).to_contain_text("amount")
    page.get_by_label("Why, for the record").fill("<b>looking</b> into it")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator(".facts")).to_contain_text("ann")
    expect(page.locator(".history")).to_contain_text("<b>looking</b> into it")
    page.get_by_label("Silence for").select_option("2h")
    page.get_by_role("button", name="Silence", exact=True).click()
    expect(page.get_by_text("Silenced until")).to_be_visible()
    page.get_by_role("button", name="End the silence").click()
    expect(page.get_by_text("Silenced until")).to_have_count(0)
    page.get_by_role("button", name="Resolve").click()
    expect(page.locator(".facts")).to_contain_text("Resolved")


def test_a_schedule_is_run_and_paused_and_the_page_follows_by_itself(page: Page, site: Site) -> None:
    page.goto(site.url + "/schedules")
    page.get_by_role("link", name="nightly").click()
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".facts")).to_contain_text("Paused")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Run now").click()
    expect(page.locator("main")).to_contain_text("by ann")
    expect(page.locator("main")).to_contain_text("Succeeded", timeout=60_000)  # nobody has loaded it again


def test_what_is_open_and_drawn_stays_when_the_page_is_renewed(page: Page, site: Site) -> None:
    page.goto(site.url + "/models/shop")
    expect(page.locator("#chart-1 canvas")).to_be_visible()
    page.get_by_text("Figures of Traffic").click()
    page.evaluate("document.querySelector('#chart-1 canvas').dataset.same = 'yes'")
    page.evaluate("document.getElementById('content').dataset.every = '0'")
    with page.expect_response(lambda answer: answer.url.endswith("/models/shop")):
        pass
    page.wait_for_timeout(300)
    expect(page.get_by_role("region", name="Figures of Traffic")).to_be_visible()
    assert page.locator("#chart-1 canvas").get_attribute("data-same") == "yes"
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "false")


def test_the_keyboard_alone_is_enough(page: Page, site: Site) -> None:
    page.goto(site.url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.locator("#theme").focus()
    before = page.locator("html").get_attribute("data-theme")
    page.keyboard.press("Enter")
    expect(page.locator("html")).not_to_have_attribute("data-theme", str(before))
    page.reload()
    expect(page.locator("html")).not_to_have_attribute("data-theme", str(before))
    outline = page.locator("#theme").evaluate("e => { e.focus(); return getComputedStyle(e).outlineStyle; }")
    assert outline in ("solid", "auto", "none")


def test_a_key_for_one_model_sees_that_model(browser: Browser, site: Site) -> None:
    page = _page(browser, site, site.reader)
    expect(page.get_by_role("link", name="line", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="shop", exact=True)).to_have_count(0)
    for path in ("/models/shop", "/models/shop/drift/amount", "/schedules/nightly"):
        answer = page.goto(site.url + path)
        assert answer is not None
        assert answer.status == 403, path
        assert "amount" not in page.locator("table").all_inner_texts()
    for path in ("/incidents?state=all", "/batch", "/schedules"):
        page.goto(site.url + path)
        assert "shop" not in page.locator("main").inner_text(), path
    page.context.close()
