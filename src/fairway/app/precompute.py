"""Precomputing wired up: the registry's version, files by URL, the store that the settings name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from fairway.app.home import Home, open_home
from fairway.batch.answered import Source
from fairway.batch.precompute import Precomputation
from fairway.batch.precompute import precompute as run
from fairway.batch.source import SourceFile, file_system, find_files
from fairway.batch.sql import is_sql, read_place
from fairway.core.errors import AnswersUnavailable, RegistryUnavailable
from fairway.core.settings import Settings
from fairway.core.version import ModelVersion
from fairway.inference.live import LiveVersion, load_version
from fairway.inference.precomputed import store_url
from fairway.stores.answers import open_answers
from fairway.stores.counters import Counters
from fairway.stores.disk import file_lock

_NO_LIMIT = 2**62
_STORE_SECONDS = 5.0
"""Longest that one question to a store on another machine may take here, where nobody waits for an answer."""


def precompute(
    name: str,
    files: str | os.PathLike[str],
    *,
    key: str,
    store: str | None = None,
    ttl_seconds: float | None = None,
    rejects: str | os.PathLike[str] | None = None,
    resume: bool = False,
    allow_empty: bool = False,
    home: str | os.PathLike[str] | None = None,
    tell: Callable[[str, float], None] = lambda what, fraction: None,
) -> Precomputation:
    """Answers for every row of `files` (a file, a folder, a glob, an fsspec URL, or the URL of a table or query as batches
    read it), stored under the column `key`.

    `name` is a model (the version with the most traffic answers), `payments@champion` or `payments:3`. `store` and
    `ttl_seconds` are those of `[hybrid]` unless given; `rejects` is `<home>/precompute/<model>.rejects.jsonl`. Raises
    what loading the model raises and what `fairway.batch.precompute.precompute` does.
    """
    with open_home(home) as place:
        version = place.find(name)
        settings = place.settings
        hybrid = settings.hybrid
        folder = place.path / "precompute"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with file_lock(folder / f"{version.model}.lock", timeout_seconds=0.0):
                found = _source(os.fspath(files), key, settings)
                url = store_url(settings, version.model) if store is None else store
                answers = open_answers(url, version.model, home=place.path, timeout_seconds=_STORE_SECONDS)
                try:
                    live = _load(place, version, settings)
                    try:
                        return run(
                            live,
                            answers,
                            found,
                            limits=hybrid,
                            ttl_seconds=hybrid.ttl_seconds if ttl_seconds is None else ttl_seconds,
                            rejects=Path(rejects or folder / f"{version.model}.rejects.jsonl"),
                            resume=resume,
                            allow_empty=allow_empty,
                            tell=tell,
                        )
                    finally:
                        live.engine.unload()
                finally:
                    answers.close()
        except RegistryUnavailable as error:
            if "Another process has held" not in str(error):
                raise
            raise AnswersUnavailable(
                f"Another process is precomputing answers of {version.model} in {place.path}.",
                hint="Wait for it to finish.",
            ) from error


def _source(files: str, key: str, settings: Settings) -> Source:
    if is_sql(files):
        place = read_place(files)
        if not place.keys:
            place = msgspec.structs.replace(place, keys=(key,))
        return Source(None, (SourceFile(path=place.shown, format="sql"),), key, place)
    fs, path = file_system(files, settings.batch.storage)
    return Source(fs, tuple(find_files(fs, path)), key)


def _load(place: Home, version: ModelVersion, settings: Settings) -> LiveVersion:
    """As the server loads it, without the limits of a request; what answers depend on is always found out."""
    replace = msgspec.structs.replace
    models = dict(settings.models)
    if version.model in models:
        models[version.model] = replace(models[version.model], batching=None)
    settings = replace(
        settings,
        limits=replace(settings.limits, rows=_NO_LIMIT, problems=_NO_LIMIT),
        batching=replace(settings.batching, mode="auto"),
        models=models,
    )
    directory = place.registry.fetch(version)
    return load_version(version.model, version.version, directory, Counters(), settings)
