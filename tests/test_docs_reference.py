"""The reference pages say what the code says, and no link leads nowhere."""

import pytest

from fairway.core import errors
from fairway.serving.metrics import described_metrics
from scripts import docs
from scripts.settings_page import settings_page


@pytest.mark.parametrize("name", docs.PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (docs.ROOT / name).read_text(encoding="utf-8") == docs.PAGES[name](), "run `make docs`"


def test_every_error_has_a_code_of_its_own_and_a_place_in_the_tree() -> None:
    kinds = list(docs.error_classes())
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert set(docs.meanings()) == {kind.__name__ for kind in kinds}
    assert issubclass(errors.ContractViolation, errors.InvalidInput)


def test_every_setting_says_what_it_is() -> None:
    groups = [*settings_page().split("\n## ")][1:]
    assert len(groups) > 20
    silent = [
        f"{group.partition(chr(10))[0]} {line}"
        for group in groups
        for line in group.splitlines()
        if line.startswith("| `")
        and line.split(" | ")[2].strip(" |").partition("(")[0].partition("One of")[0] == ""
    ]
    assert silent == [], "write a docstring below the field"


def test_no_link_is_broken() -> None:
    assert docs.broken_links() == []


def test_the_pages_name_no_machine() -> None:
    for page in docs.markdown_files():
        text = page.read_text(encoding="utf-8")
        assert "/home/" not in text, page
        assert "/root/" not in text, page


def test_the_readme_lists_every_guide_and_every_example() -> None:
    readme = (docs.ROOT / "README.md").read_text(encoding="utf-8")
    listed = readme[readme.index("## Guides") :]
    pages = [*docs.ROOT.glob("docs/guides/*.md"), *docs.ROOT.glob("examples/*/README.md")]
    assert pages
    missing = [name for page in pages if f"({(name := str(page.relative_to(docs.ROOT)))})" not in listed]
    assert missing == []


def test_every_metric_is_in_the_reference() -> None:
    page = (docs.ROOT / "docs/reference/http.md").read_text(encoding="utf-8")
    assert [
        name for name in described_metrics() if f"`{name}`" not in page and f"`{name}_total`" not in page
    ] == []
