"""Stores an estimator as skops bytes that depend on nothing but the estimator.

skops names files and marks shared objects by memory address, writes sets in hash order and stamps the time. All
of that is renamed, sorted or fixed, so that the same estimator gives the same bytes, hence the same digest, in
every process, and however often the estimator was asked in between.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from fairway.core.errors import ArtifactError
from fairway.security.skops_file import SCHEMA, load_skops, named_types

__all__ = ["dump", "load"]

_EPOCH = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE = 0o100644 << 16
# Values that cannot change: whether two of them are one object in memory is chance, and means nothing.
_IMMUTABLE = {"JsonNode", "TypeNode", "FunctionNode", "TupleNode", "SliceNode", "DTypeNode", "BytesNode"}


def dump(estimator: Any) -> tuple[bytes, tuple[str, ...]]:
    """The estimator as a skops archive, and the names of the types a loader must trust to open it, sorted.

    Raises `ArtifactError` when skops cannot store it (a lambda, a generator, a few exotic estimators).
    """
    import skops.io  # optional: only scikit-learn models need it

    try:
        data = skops.io.dumps(estimator)
    except Exception as error:
        raise ArtifactError(
            f"{type(estimator).__name__} cannot be stored without pickle ({type(error).__name__}: {error}).",
            hint="Replace the part named with a class or function of an importable module.",
        ) from error
    data = _normalised(data)
    return data, named_types(data, type(estimator).__name__)


def load(data: bytes, trusted: tuple[str, ...] = ()) -> Any:
    """The estimator again. `trusted` are the names `dump` gave; those not on the allow-list must be in it."""
    return load_skops(data, trusted, source="model.skops")


def _normalised(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read(SCHEMA))
        files = {name: archive.read(name) for name in archive.namelist() if name != SCHEMA}
    _sort_sets(schema)
    _reset_counters(schema)
    renamed = _rename(schema)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression=zipfile.ZIP_STORED) as archive:
        _write(archive, SCHEMA, json.dumps(schema, indent=1).encode())
        for old, new in renamed.items():
            _write(archive, new, _without_padding(files[old]))
    return out.getvalue()


def _without_padding(data: bytes) -> bytes:
    """Zeroes the gaps between the fields of a structured array (tree nodes): they hold what the memory held."""
    if not data.startswith(b"\x93NUMPY"):
        return data
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.names is None:
        return data
    clean = np.zeros(array.shape, array.dtype)
    for name in array.dtype.names:
        clean[name] = array[name]
    out = io.BytesIO()
    np.save(out, clean, allow_pickle=False)
    return out.getvalue()


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=_EPOCH)
    entry.external_attr = _PLAIN_FILE
    archive.writestr(entry, data)


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every node of the schema, parents first, in file order. No recursion: trees of estimators nest deeply."""
    pending = [schema]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if "__loader__" in item:
                yield item
            pending.extend(reversed(item.values()))
        elif isinstance(item, list):
            pending.extend(reversed(item))


def _sort_sets(schema: Any) -> None:
    """Puts the items of sets in an order of their own; inner sets first, because outer ones compare them."""
    sets = [node for node in _nodes(schema) if node["__loader__"] == "SetNode"]
    for node in reversed(sets):
        node["content"].sort(key=lambda item: json.dumps(_without_ids(item), sort_keys=True))


def _reset_counters(schema: Any) -> None:
    """Zeroes what scikit-learn remembers of a process and not of a model.

    Neighbour trees count the queries they answered (positions 7 to 10 of their state), and text vectorizers
    keep the address of the stop words they checked last.
    """
    for node in _nodes(schema):
        content = node.get("content")
        if not isinstance(content, dict):
            continue
        if str(node.get("__class__")).startswith(("KDTree", "BallTree")):
            for count in content["content"][7:11]:
                count["content"] = "0"
        if isinstance(content.get("_stop_words_id"), dict):
            content["_stop_words_id"]["content"] = "0"


def _without_ids(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _without_ids(value) for key, value in item.items() if key not in ("__id__", "file")}
    if isinstance(item, list):
        return [_without_ids(value) for value in item]
    return item


def _rename(schema: Any) -> dict[str, str]:
    """Numbers shared objects and files in the order they appear; returns old file name -> new file name."""
    nodes = list(_nodes(schema))
    uses = Counter(
        node["__id__"] for node in nodes if "__id__" in node and node["__loader__"] not in _IMMUTABLE
    )
    numbers: dict[Any, int] = {}
    files: dict[str, str] = {}
    for node in nodes:
        if "__id__" in node:
            identity = node.pop("__id__")
            if node["__loader__"] not in _IMMUTABLE and uses[identity] > 1:
                node["__id__"] = numbers.setdefault(identity, len(numbers) + 1)
        if isinstance(node.get("file"), str):
            suffix = node["file"].rpartition(".")[2]
            node["file"] = files.setdefault(node["file"], f"{len(files)}.{suffix}")
    return files
