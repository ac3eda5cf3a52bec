"""The lock files are whole: hashed, free of addresses, without torch, and in step with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)(?: *; *([^\\]+))?", re.MULTILINE)


def pins(lock: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, version, _ in _PIN.findall(lock.read_text()):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


def wanted(extra: str) -> list[Requirement]:
    """An extra's requirements, those of the extras it names included."""
    found = []
    for text in EXTRAS[extra]:
        requirement = Requirement(text)
        if requirement.name == "fairway":
            found += [inner for name in requirement.extras for inner in wanted(name)]
        else:
            found.append(requirement)
    return found


def test_there_is_one_file_per_set_of_extras() -> None:
    assert {lock.stem for lock in LOCKS} == {"build", "clients", "core", "dev", "programs", "run", *EXTRAS}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_pin_is_hashed_and_nothing_else_stands_there(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    assert "file:" not in text
    entries = re.split(r"\n(?! )", text.strip())
    assert all(_PIN.match(entry) and "--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_torch_stays_out(lock: Path) -> None:
    assert not {"torch", "tensorflow"} & set(pins(lock))


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_the_pins_fit_what_the_project_asks_for(extra: str) -> None:
    locked = pins(ROOT / "requirements" / f"{extra}.txt")
    core = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    for requirement in [*core, *wanted(extra)]:
        versions = locked[canonicalize_name(requirement.name)]
        assert all(Version(version) in requirement.specifier for version in versions), requirement


def test_what_users_install_is_what_was_tested() -> None:
    tested = pins(ROOT / "requirements" / "dev.txt")
    for lock in LOCKS:
        if lock.stem in (
            "clients",
            "programs",
        ):  # an environment of its own, which no user of Fairway installs
            continue
        for name, versions in pins(lock).items():
            if name in tested:
                assert set(versions) <= set(tested[name]), f"{lock.name}: {name}"


def test_the_development_set_has_every_tool() -> None:
    locked = pins(ROOT / "requirements" / "dev.txt")
    for group in ("test", "check"):
        for text in PROJECT["dependency-groups"][group]:
            requirement = Requirement(text)
            assert all(
                Version(v) in requirement.specifier for v in locked[canonicalize_name(requirement.name)]
            )
