import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import InvalidInput
from fairway.core.version import Reference, check_alias, check_model_name, parse_reference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("payments", Reference("payments")),
        ("payments@champion", Reference("payments", alias="champion")),
        ("payments:3", Reference("payments", version=3)),
        ("a.b-c_1:10", Reference("a.b-c_1", version=10)),
    ],
)
def test_references_are_read_and_written_alike(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    ["", "@", ":", "a@", "a:", "a:0", "a:-1", "a:1.5", "a:x", "a:1:2", "a@b@c", "a@1", "a b", "../a", "a/b", ".a", "-a", "ä",
     "a\n", "a:" + "9" * 5000, "a" * 129],
)  # fmt: skip
def test_what_is_not_a_reference(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_reference(text)


@given(st.text())
def test_any_text_is_a_reference_or_refused_by_name(text: str) -> None:
    try:
        assert str(parse_reference(text)).replace(":0", ":") is not None
    except InvalidInput:
        pass


@pytest.mark.parametrize("name", ["a", "A1", "0", "fraud-v2.final_1", "x" * 128])
def test_names_that_fit_urls_paths_and_labels(name: str) -> None:
    assert check_model_name(name) == name


def test_an_alias_starts_with_a_letter_so_that_it_is_never_a_version() -> None:
    assert check_alias("blue-2") == "blue-2"
    for alias in ("2", "", "-a", "a/b", "a" * 65):
        with pytest.raises(InvalidInput, match="not an alias"):
            check_alias(alias)
