"""Fairway from Python: package, deploy, load."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from fairway.app.home import open_home
from fairway.app.live import make_live, register_bundle
from fairway.core.bundle import Proof, Timings
from fairway.core.contract import Contract
from fairway.core.version import check_model_name
from fairway.packaging.conversion.engine import ConversionOptions
from fairway.packaging.package import Packaged
from fairway.packaging.package import package as package_model

Progress = Callable[[str, float], None]


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A version that now takes traffic."""

    name: str
    version: int
    digest: str
    engine: str
    proof: Proof
    timings: Timings | None
    contract: Contract
    home: str
    is_new: bool
    notes: tuple[str, ...] = ()


def _silent(stage: str, fraction: float) -> None:
    return None


def package(
    model: object,
    data: object,
    *,
    out: str | os.PathLike[str],
    target: str | None = None,
    prepare: str | None = None,
    trust: tuple[str, ...] = (),
    options: ConversionOptions | None = None,
    contract: Contract | str | None = None,
    progress: Progress = _silent,
) -> Packaged:
    """Makes a bundle in `out` from a model (a file's path or a live object) and a sample of its data (a file's
    path, a DataFrame, an array). See `fairway.packaging.package`."""
    return package_model(
        model,
        data,
        target=target,
        prepare=prepare,
        trust=trust,
        options=options or ConversionOptions(),
        contract=contract,
        out=Path(out),
        progress=progress,
    )


def deploy(
    model: object,
    data: object,
    *,
    name: str,
    target: str | None = None,
    home: str | os.PathLike[str] | None = None,
    prepare: str | None = None,
    trust: tuple[str, ...] = (),
    options: ConversionOptions | None = None,
    contract: Contract | str | None = None,
    why: str = "deploy",
    progress: Progress = _silent,
) -> Deployment:
    """Packages a model, registers it and gives it all the traffic of `name`.

    The same model and data deployed again is the version it already was.
    """
    check_model_name(name)
    with open_home(home) as place, tempfile.TemporaryDirectory(prefix="fairway-") as scratch:
        packaged = package(
            model,
            data,
            out=Path(scratch) / "bundle",
            target=target,
            prepare=prepare,
            trust=trust,
            options=options,
            contract=contract,
            progress=progress,
        )
        version = register_bundle(place, name, packaged, why=why)
        make_live(place, version, why=why)
        return Deployment(
            name=name,
            version=version.version,
            digest=version.digest,
            engine=version.engine,
            proof=packaged.proof,
            timings=packaged.timings,
            contract=packaged.contract,
            home=str(place.path),
            is_new=version.is_new,
            notes=packaged.notes,
        )
