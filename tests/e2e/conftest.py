"""One home with two small models, deployed once per worker."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

import fairway
from tests.e2e.servers import MIXED, mixed_model, numeric_data, numeric_model, visits

CHROMIUM = os.environ.get("FAIRWAY_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shop` (mixed columns; versions 1 and, live, 2) and `line` (three numbers)."""
    home = tmp_path_factory.mktemp("served") / "home"
    for seed in (8, 7):
        frame = visits(400, seed)
        fairway.deploy(mixed_model(frame), frame[[*MIXED, "bought"]], target="bought", name="shop", home=home)
    frame = numeric_data()
    fairway.deploy(numeric_model(frame), frame, target="y", name="line", home=home)
    return home


@pytest.fixture
def home_copy(home: Path, tmp_path: Path) -> Path:
    """The same home, to break."""
    shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("log", "server-*"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "no browser: run scripts/services.sh, or name one in FAIRWAY_CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
