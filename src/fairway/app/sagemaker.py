"""What a SageMaker container serves: the bundle that was unpacked for it, or nothing yet when it is to hold many."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fairway.app.home import Home
from fairway.app.live import make_live, register_bundle
from fairway.app.serve import keep_snapshot, serving_snapshot
from fairway.core.settings import Settings
from fairway.packaging.bundle import read_bundle
from fairway.packaging.placed import placed_bundle
from fairway.registry.snapshot import ServingSnapshot


def container_settings(settings: Settings) -> Settings:
    """Settings for a container that only its platform reaches: every address, and the admin API without a key."""
    replace = msgspec.structs.replace
    limits = settings.limits
    asked = settings.sagemaker.max_payload_mb * 2**20
    return replace(
        settings,
        serving=replace(settings.serving, host="0.0.0.0", grpc=False),  # noqa: S104 - SageMaker asks from outside
        access=replace(settings.access, open_admin=True),
        limits=replace(limits, body_bytes=max(limits.body_bytes, asked)),
    )


def container_snapshot(settings: Settings, folder: Path, name: str, *, many: bool) -> ServingSnapshot:
    """The model in `folder`, registered in the container's own home as `name` and live; with `many`, no model.

    Raises NotFound saying how to package what is in the folder, or what registering a bundle raises.
    """
    home = Path(settings.home)
    with Home(settings) as place:
        if many:
            snapshot = place.registry.snapshot(())
            keep_snapshot(home, snapshot)
            return snapshot
        bundle = read_bundle(placed_bundle(folder, home / "placed" / "model"))
        version = register_bundle(place, name, bundle, why="placed by SageMaker")
        make_live(place, version, why="placed by SageMaker")
    return serving_snapshot(settings, (name,))
