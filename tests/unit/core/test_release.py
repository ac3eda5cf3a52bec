"""There is one version."""

import tomllib
from pathlib import Path

import fairway
from fairway.core.release import VERSION


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == VERSION == fairway.__version__
