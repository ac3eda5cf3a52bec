"""From models to a plane that answers, and goes on doing so when they change."""

from pathlib import Path

import pytest

from fairway.core.errors import NotFound
from fairway.core.route import everything_to
from fairway.core.settings import LogSettings, ServingSettings, Settings
from fairway.inference import opening, residents
from fairway.inference.opening import connect, open_plane
from fairway.inference.residents import Residents
from fairway.registry.snapshot import ServedModel, ServedVersion
from fairway.stores.counters import Counters
from tests.unit.inference.test_residents import Library

QUIET = LogSettings(enabled=False)


def served(version: int) -> ServedModel:
    held = ServedVersion(version=version, digest=f"a{version}", aliases=(), directory=f"/nowhere/a{version}")
    return ServedModel(route=everything_to("a", version), versions=(held,))


def test_a_program_has_its_models_at_once_whatever_servers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()

    class Here(Residents):
        def __init__(self, counters: Counters, settings: Settings) -> None:
            super().__init__(counters, settings, library.load, library.describe)

    monkeypatch.setattr(opening, "Residents", Here)
    settings = Settings(log=QUIET, serving=ServingSettings(load="lazy", memory_bytes=1))
    plane = open_plane([served(1)], Counters(), settings)
    assert library.loads == [("a", 1)]
    assert plane.settings == settings
    plane.close()


def test_what_cannot_be_loaded_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no bundle"):
        open_plane([served(1)], Counters(), Settings(home=str(tmp_path), log=QUIET))


def test_a_plane_sees_what_takes_its_models_place() -> None:
    library, counters, settings = Library(), Counters(), Settings(log=QUIET)
    held = residents.Residents(counters, settings, library.load, library.describe)
    held.open([served(1)])
    plane = connect(held, counters, settings)
    assert plane.table["a"].primary.version == 1
    held.follow([served(2)])
    assert plane.table["a"].primary.version == 2
    assert plane.table is held.table
    plane.close()
