"""The page on which a model is tried, in a real browser: filled in, sent with the keyboard, refused, asked for a key."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.servers import FAIRWAY, Server, serving

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that may talk to the server alone; whatever it complains about fails the test."""
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    page.complaints = complaints  # type: ignore[attr-defined]
    yield page
    page.close()


def complaints(page: Page) -> list[str]:
    return [said for said in page.complaints if "status of 4" not in said]  # type: ignore[attr-defined]


def test_the_example_is_filled_in_and_sent_by_keyboard(page: Page, server: Server) -> None:
    page.goto(f"http://{server.address}/v2/models/shop/docs")
    expect(page.get_by_role("heading", name="shop", level=1)).to_be_visible()
    expect(page.get_by_label("amount", exact=True)).to_be_focused()
    example = json.load(urlopen(f"http://{server.address}/v2/models/shop/openapi.json"))
    body = example["paths"]["/v2/models/shop/infer"]["post"]["requestBody"]["content"]["application/json"]
    row = body["examples"]["rows"]["value"]["dataframe_records"][0]
    for name, value in row.items():
        shown = page.get_by_label(name, exact=True).input_value()
        assert shown in ("" if value is None else str(value), json.dumps(value)), name
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("200 OK")
    expect(page.get_by_role("status")).to_contain_text("by shop:2")
    answer = json.loads(page.get_by_label("Body of the answer").inner_text())
    assert [output["name"] for output in answer["outputs"]] == ["label", "probabilities"]
    assert page.locator("#timing tbody th").all_inner_texts() == [
        "parse",
        "validate",
        "queue",
        "run",
        "encode",
    ]
    assert not complaints(page)


@pytest.mark.parametrize("kind", ["rows", "v2", "text/csv", "application/jsonlines"])
def test_every_body_that_it_offers_is_answered(page: Page, server: Server, kind: str) -> None:
    page.goto(f"http://{server.address}/v2/models/shop/docs")
    page.locator("#kind").select_option(kind)
    page.locator("#accept").select_option("text/csv")
    page.locator("#version").select_option("1")
    page.locator("#body").focus()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status")).to_contain_text("200 OK")
    expect(page.get_by_role("status")).to_contain_text("by shop:1")
    assert page.get_by_label("Body of the answer").inner_text().startswith("label,probabilities_0")
    assert not complaints(page)
    command = page.locator("#curl").inner_text()
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("label,probabilities_0"), command


def test_what_is_wrong_is_shown(page: Page, server: Server) -> None:
    page.goto(f"http://{server.address}/v2/models/line/docs")
    page.get_by_label("b", exact=True).fill("<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("status")).to_contain_text("400")
    answer = json.loads(page.get_by_label("Body of the answer").inner_text())
    assert answer["problems"][0]["field"] == "b"
    page.get_by_role("button", name="Example again").click()
    page.keyboard.press("Tab")
    page.get_by_label("b", exact=True).press("Enter")
    expect(page.get_by_role("status")).to_contain_text("200")
    assert not complaints(page)


def test_the_list_of_models_leads_to_each(page: Page, server: Server) -> None:
    page.goto(f"http://{server.address}/v2/docs")
    page.get_by_role("link", name="line").click()
    expect(page.get_by_role("heading", name="line", level=1)).to_be_visible()
    assert not complaints(page)


def test_a_key_is_asked_for_and_used(page: Page, home_copy: Path) -> None:
    make = [FAIRWAY, "keys", "create", "ann", "--model", "line", "--home", str(home_copy), "--json"]
    done = subprocess.run(make, capture_output=True, text=True, timeout=60, check=True)
    key = json.loads(done.stdout)["secret"]
    with serving(home_copy) as server:
        page.goto(f"http://{server.address}/v2/docs")
        expect(page.get_by_role("alert")).to_contain_text("API key")
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type(key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("link")).to_have_text(["line"])
        page.goto(f"http://{server.address}/v2/models/line/docs")
        page.get_by_label("API key").fill(key)
        page.get_by_label("API key").press("Enter")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("status")).to_contain_text("200 OK")
        assert key not in page.locator("#curl").inner_text()
        assert not complaints(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(page: Page, server: Server, scheme: str) -> None:
    """Contrast of 4.5 and more (WCAG 2.2, 1.4.3) for every text on the page."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"http://{server.address}/v2/models/shop/docs")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("status")).to_contain_text("200")
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) > 20
    assert min(ratio for ratio, _ in ratios) >= 4.5, sorted(ratios)[:3]


CONTRAST = """() => {
  const part = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number); return .2126 * part(r) + .7152 * part(g) + .0722 * part(b); };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (c !== "rgba(0, 0, 0, 0)") return c; } return "rgb(255,255,255)"; };
  return [...document.querySelectorAll("body *")].filter(e => e.offsetParent && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && !["SCRIPT", "STYLE", "OPTION"].includes(e.tagName))
    .map(e => { const a = light(getComputedStyle(e).color), b = light(ground(e)); return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.outerHTML.slice(0, 80)]; });
}"""
