"""`fairway.load`: a registered model, ready to predict in this process."""

from __future__ import annotations

import atexit
import math
import os

import msgspec

from fairway.app.home import open_home
from fairway.core.route import everything_to
from fairway.core.version import parse_reference
from fairway.inference.loaded import LoadedModel
from fairway.inference.opening import open_plane
from fairway.registry.snapshot import ServedModel, ServedVersion
from fairway.stores.counters import Counters


def load(name: str, *, home: str | os.PathLike[str] | None = None, record: bool = True) -> LoadedModel:
    """Loads `payments` (as its route says), `payments@champion` or `payments:3`.

    The bundle is verified and its golden rows are predicted again before the model is given out. Raises
    ModelNotFound, VersionNotFound, AliasNotFound, CorruptBundle, GoldenMismatch or EnvironmentMismatch. With
    `record`, predictions go to the home's log.
    """
    reference = parse_reference(name)
    with open_home(home) as place:
        settings = place.settings
        if reference.alias is None and reference.version is None:
            (model,) = place.registry.snapshot((reference.model,)).models
        else:
            version = place.registry.resolve(reference)
            served = ServedVersion(
                version=version.version,
                digest=version.digest,
                aliases=(),
                directory=str(place.registry.fetch(version)),
            )
            model = ServedModel(route=everything_to(reference.model, version.version), versions=(served,))
    if not record:
        settings = msgspec.structs.replace(settings, log=msgspec.structs.replace(settings.log, enabled=False))
    # Whoever calls has a thread that can wait: nothing is gained by running the model in another one.
    serving = msgspec.structs.replace(settings.serving, inline_seconds=math.inf)
    settings = msgspec.structs.replace(settings, serving=serving)
    loaded = LoadedModel(reference.model, None, lambda: open_plane([model], Counters(), settings))
    atexit.register(loaded.close)
    return loaded
