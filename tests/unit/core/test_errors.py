"""The tree drawn in the module's docstring is the tree there is."""

import inspect
import re

import pytest

from fairway.core import errors
from fairway.core.errors import FairwayError, InvalidInput, Problem, UntrustedArtifact


def drawn() -> dict[str, str | None]:
    """Class name -> the name of the one it hangs from."""
    parents: dict[str, str | None] = {}
    above: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        found = re.match(r"([│ ├└─]*)([A-Z]\w+)(?:\s|$)", line)
        if found is None or line.startswith("Errors"):
            continue
        depth = len(found[1]) // 4
        del above[depth:]
        parents[found[2]] = above[-1] if above else None
        above.append(found[2])
    return parents


def real() -> dict[str, str | None]:
    classes = [
        c
        for _, c in inspect.getmembers(errors, inspect.isclass)
        if issubclass(c, FairwayError) and c.__module__ == errors.__name__
    ]
    return {c.__name__: None if c is FairwayError else c.__bases__[0].__name__ for c in classes}


def test_the_drawn_tree_is_the_real_one() -> None:
    assert drawn() == real()


def test_codes_are_stable_words_and_unique() -> None:
    codes = [getattr(errors, name).code for name in real()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("name", sorted(real()))
def test_every_error_takes_a_message_and_a_hint(name: str) -> None:
    error = getattr(errors, name)("it broke.", hint="Mend it.")
    assert str(error) == "it broke. Mend it."
    assert error.hint == "Mend it."


def test_what_errors_carry() -> None:
    problem = Problem("is null", "amount", 3)
    assert InvalidInput("no", (problem,)).problems == (problem,)
    assert UntrustedArtifact("no", ("os.system",)).names == ("os.system",)
