"""Fairway from Python: package, deploy, load."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from fairway.app.home import open_home
from fairway.app.live import make_live, register_bundle
from fairway.app.settings import read_settings
from fairway.core.bundle import Proof, Timings
from fairway.core.contract import Contract
from fairway.core.errors import InvalidInput
from fairway.core.version import check_model_name, parse_reference
from fairway.packaging.bundle import read_bundle
from fairway.packaging.conversion.engine import ConversionOptions
from fairway.packaging.opening import Requirements
from fairway.packaging.package import Packaged
from fairway.packaging.package import package as package_model
from fairway.packaging.pipeline import package_pipeline
from fairway.packaging.pipeline_check import NodeModel
from fairway.packaging.pipeline_text import is_pipeline

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
    data: object = None,
    *,
    out: str | os.PathLike[str],
    target: str | None = None,
    home: str | os.PathLike[str] | None = None,
    prepare: str | None = None,
    trust: tuple[str, ...] = (),
    files: tuple[str | Path, ...] = (),
    requirements: str | os.PathLike[str] | None = None,
    python: str | None = None,
    options: ConversionOptions | None = None,
    contract: Contract | str | None = None,
    reference: object = None,
    time: str | None = None,
    query: str | None = None,
    progress: Progress = _silent,
) -> Packaged:
    """Makes a bundle in `out` from a model (a file's path or a live object) and a sample of its data (a file's
    path, a DataFrame, an array). See `fairway.packaging.package`.

    `files` go with a Python function, relative to its folder. `requirements` is a requirements file of packages that
    the function alone gets, in an environment of its own below `home`, for the Python `python` ("3.12" or a path).

    `reference` are rows like `data`, labelled and best not trained on, that monitors compare traffic with; rows of `data`
    if none are given. `time` names their column of times, by which an hour is compared with the same hours; by default the
    only column of moments that the model does not use. `query` names their column that says which rows are one list, of a
    model that ranks.

    A model may be a pipeline, a path ending in .toml: its nodes name models of `home`, and `data` may be left out.
    See `fairway.packaging.pipeline`.
    """
    if is_pipeline(model):
        refused = {
            "prepare": prepare is not None,
            "trust": bool(trust),
            "files": bool(files),
            "requirements": requirements is not None or python is not None,
            "contract": contract is not None,
            "reference, time or query": any(given is not None for given in (reference, time, query)),
            "tolerance, allow_flips or native": options not in (None, ConversionOptions()),
        }
        _refuse_options([name for name, given in refused.items() if given])
        return _package_pipeline(Path(str(model)), data, Path(out), target, home, progress)
    if data is None:
        raise InvalidInput(
            "Without sample data there is no contract and no proof.",
            hint="Give training data, or rows like it: --data FILE.",
        )
    own = None
    if requirements is not None:
        settings = read_settings(home)
        own = Requirements(Path(requirements), python, settings.isolation_at_home())
    elif python is not None:
        raise InvalidInput(
            "python chooses the interpreter of a model's own environment: give requirements too."
        )
    return package_model(
        model,
        data,
        target=target,
        prepare=prepare,
        trust=trust,
        files=files,
        requirements=own,
        options=options or ConversionOptions(),
        contract=contract,
        reference=reference,
        time=time,
        query=query,
        out=Path(out),
        progress=progress,
    )


def _refuse_options(names: list[str]) -> None:
    if names:
        raise InvalidInput(
            f"A pipeline takes no {', '.join(names)}: its models were packaged with theirs.",
            hint="Fields that models disagree about are settled in its [inputs].",
        )


def _package_pipeline(
    path: Path,
    data: object,
    out: Path,
    target: str | None,
    home: str | os.PathLike[str] | None,
    progress: Progress,
) -> Packaged:
    with open_home(home) as place:

        def find(reference: str) -> NodeModel:
            version = place.registry.resolve(parse_reference(reference))
            return NodeModel(version.model, version.version, read_bundle(place.registry.fetch(version)))

        return package_pipeline(
            path,
            find=find,
            data=data,
            target=target,
            out=out,
            isolation=place.settings.isolation_at_home(),
            progress=progress,
        )


def deploy(
    model: object,
    data: object = None,
    *,
    name: str,
    target: str | None = None,
    home: str | os.PathLike[str] | None = None,
    prepare: str | None = None,
    trust: tuple[str, ...] = (),
    files: tuple[str | Path, ...] = (),
    requirements: str | os.PathLike[str] | None = None,
    python: str | None = None,
    options: ConversionOptions | None = None,
    contract: Contract | str | None = None,
    reference: object = None,
    time: str | None = None,
    query: str | None = None,
    why: str = "deploy",
    progress: Progress = _silent,
) -> Deployment:
    """Packages a model (see `package`), registers it and gives it all the traffic of `name`.

    The same model and data deployed again is the version it already was.
    """
    check_model_name(name)
    with open_home(home) as place, tempfile.TemporaryDirectory(prefix="fairway-") as scratch:
        packaged = package(
            model,
            data,
            out=Path(scratch) / "bundle",
            target=target,
            home=place.path,
            prepare=prepare,
            trust=trust,
            files=files,
            requirements=requirements,
            python=python,
            options=options,
            contract=contract,
            reference=reference,
            time=time,
            query=query,
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
