"""Opens a skops archive that names only allowed or trusted types.

skops is a zip of JSON and arrays and runs nothing by itself, but it makes objects of the types it names, so the
same allow-list decides. skops trusts some types on its own (numpy's, scikit-learn's public estimators); the list
here is asked about all others.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from fairway.core.errors import (
    ArtifactError,
    CorruptBundle,
    FairwayError,
    UnknownFormat,
    UntrustedArtifact,
)
from fairway.security.allow_list import rule_for, today
from fairway.security.compression import MAX_BYTES, MAX_RATIO, SMALL_BYTES
from fairway.security.lightgbm_text import check_lightgbm
from fairway.security.saved_versions import version_warnings_refused
from fairway.security.tree_bounds import check_trees

SCHEMA = "schema.json"


def named_types(data: bytes, source: str = "the file") -> tuple[str, ...]:
    """The types a skops archive would make that skops does not trust by itself, sorted. Makes nothing."""
    import skops.io  # optional: only scikit-learn models need it

    _require_archive(data, source)
    try:
        return tuple(skops.io.get_untrusted_types(data=data))
    except Exception as error:
        raise CorruptBundle(
            f"{source} is a skops archive that cannot be read ({type(error).__name__}: {error}).",
            hint="The file is truncated, altered, or of a newer skops: upgrade skops or save it again.",
        ) from error


def load_skops(data: bytes, trusted: tuple[str, ...] = (), *, source: str = "the file") -> Any:
    """The object in a skops archive.

    `trusted` are exact `module.name`s allowed besides the list. Raises `UntrustedArtifact` before anything is
    made, `EnvironmentMismatch`, `CorruptBundle`.
    """
    import skops.io  # optional: only scikit-learn models need it

    names = named_types(data, source)
    refused = tuple(name for name in names if name not in trusted and not is_allowed(name))
    if refused:
        flags = " ".join(f"--trust {name}" for name in refused)
        raise UntrustedArtifact(
            f"{source} asks for code that is not on the allow-list: {', '.join(refused)}. Nothing was run.",
            refused,
            hint=f"Only if you know this code and where the file comes from, allow it with: {flags}",
        )
    if any(name.startswith("lightgbm.") for name in names):
        _check_boosters(data, source)
    with version_warnings_refused(source):
        try:
            model = skops.io.loads(data, trusted=list(names))
        except FairwayError:
            raise
        except Exception as error:
            raise ArtifactError(
                f"{source} passed the audit but cannot be opened here: {type(error).__name__}: {error}",
                hint="Open it with the package versions it was saved with, and save it again.",
            ) from error
    check_trees(model)
    return model


def _check_boosters(data: bytes, source: str) -> None:
    """Looks at every LightGBM model in the archive, which holds them as text."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pending = [json.loads(archive.read(SCHEMA))]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            content = item.get("content")
            if item.get("__loader__") == "JsonNode" and isinstance(content, str):
                value = json.loads(content)
                if isinstance(value, str) and value.startswith("tree"):
                    check_lightgbm(value, source)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def is_allowed(name: str) -> bool:
    """Whether a dotted name stands on the allow-list."""
    module, _, attribute = name.rpartition(".")
    return rule_for(today(module, attribute)) is not None


def _require_archive(data: bytes, source: str) -> None:
    """A zip with a schema, whose files unpack to a sane size."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CorruptBundle(
            f"{source} is not a whole zip archive ({error}).",
            hint="It is truncated or altered: copy it again.",
        ) from error
    if SCHEMA not in {entry.filename for entry in entries}:
        raise UnknownFormat(f"{source} is a zip archive without {SCHEMA}: not a skops file.")
    total = sum(entry.file_size for entry in entries)
    if total > min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * len(data))):
        raise UntrustedArtifact(f"{source} is {len(data)} bytes that unpack to {total}: refused.")
    if len(entries) != len({entry.filename for entry in entries}):
        raise CorruptBundle(
            f"{source} holds two files of one name.", hint="It was altered: save the model again."
        )
