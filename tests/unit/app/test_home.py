"""Which version a name means."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import fairway
from fairway.app.home import open_home
from fairway.app.live import register_bundle
from fairway.core.errors import AliasNotFound, ModelNotFound, VersionNotFound
from fairway.core.route import Arm
from fairway.packaging.bundle import read_bundle


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of m, of which the route gives most to the second; and n, without a route."""
    home = tmp_path_factory.mktemp("home")
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=100), "y": random.normal(size=100)})
    for strength in (1.0, 0.1, 0.01):
        model = LogisticRegression(C=strength).fit(frame, frame.x + frame.y > 0)
        fairway.deploy(model, data=frame, name="m", home=home)
    fairway.package(model, frame, out=home / "n")
    with open_home(home) as place:
        register_bundle(place, "n", read_bundle(home / "n"), why="")
        route = place.registry.route("m")
        assert route is not None
        shared = msgspec.structs.replace(route, arms=(Arm(1, 0.4), Arm(2, 0.6)))
        place.registry.set_route(shared, expected_revision=route.revision, who="me", why="")
        place.registry.set_alias("m", "champion", 3, who="me", why="")
    return home


@pytest.mark.parametrize(
    ("name", "found"), [("m", ("m", 2)), ("m:1", ("m", 1)), ("m@champion", ("m", 3)), ("n", ("n", 1))]
)
def test_a_name_means_a_version(home: Path, name: str, found: tuple[str, int]) -> None:
    with open_home(home) as place:
        version = place.find(name)
    assert (version.model, version.version) == found


def test_nothing_is_unpacked_to_find_it(home: Path) -> None:
    shutil.rmtree(home / "bundles")
    with open_home(home) as place:
        place.find("m")
        assert all(place.registry.unpacked(version) is None for version in place.registry.versions("m"))


@pytest.mark.parametrize(
    ("name", "error"), [("o", ModelNotFound), ("m:9", VersionNotFound), ("m@nobody", AliasNotFound)]
)
def test_what_is_not_there_is_said(home: Path, name: str, error: type[Exception]) -> None:
    with open_home(home) as place, pytest.raises(error):
        place.find(name)
