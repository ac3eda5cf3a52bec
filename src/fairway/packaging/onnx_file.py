"""Opens ONNX models: checked by onnx itself, with their external weights found inside the model's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fairway.core.errors import CorruptBundle, MissingExtra, UntrustedArtifact

MAX_PROTOBUF = 2**31 - 1
MAX_NODES = 5_000_000


def open_onnx(data: bytes, path: Path | None) -> tuple[bytes, dict[str, Path]]:
    """The model's bytes as they are, and its external weight files by the location the model gives them.

    Raises `CorruptBundle` when onnx's checker refuses it or weights are missing, and `UntrustedArtifact` when it
    points at files outside its folder.
    """
    try:
        import onnx  # optional: only needed while packaging
        import onnx.checker
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "checking an ONNX model needs the package 'onnx'.",
            hint="Install it: pip install 'fairway[sklearn]'",
        ) from error
    source = str(path) if path is not None else "the ONNX model"
    if len(data) > MAX_PROTOBUF:
        raise CorruptBundle(
            f"{source} is over 2 GiB, more than ONNX allows.", hint="Save it with external data."
        )
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:
        raise CorruptBundle(
            f"{source} begins like an ONNX model but cannot be read ({error}).",
            hint="It is truncated or altered: export or copy it again.",
        ) from error
    if len(model.graph.node) > MAX_NODES:
        raise UntrustedArtifact(
            f"{source} has {len(model.graph.node)} nodes, more than {MAX_NODES}: refused."
        )
    files = _external_files(model, path, source)
    try:
        onnx.checker.check_model(str(path) if files else data)
    except Exception as error:
        raise CorruptBundle(
            f"{source} is not a valid ONNX model: {str(error).strip().splitlines()[0]}",
            hint="Export it again with current versions of onnx and the exporter.",
        ) from error
    return data, files


def _external_files(model: Any, path: Path | None, source: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for tensor in _tensors(model):
        if tensor.data_location != 1:  # TensorProto.EXTERNAL
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        files.setdefault(location, _inside(location, tensor.name, path, source))
        _require_whole(entries, files[location], tensor.name, source)
    return files


def _inside(location: str, tensor: str, path: Path | None, source: str) -> Path:
    parts = PurePosixPath(location)
    if not location or "\\" in location or parts.is_absolute() or ".." in parts.parts or ":" in location:
        raise UntrustedArtifact(
            f"{source} keeps the weights {tensor!r} in {location!r}, outside its own folder: refused.",
            hint="Save the model with its external data beside it.",
        )
    if path is None:
        raise CorruptBundle(
            f"{source} keeps the weights {tensor!r} in the file {location!r}.",
            hint="Give the model as a path.",
        )
    folder = path.parent.resolve()
    found = folder / parts
    if not found.is_file():
        raise CorruptBundle(
            f"{source} keeps the weights {tensor!r} in {location!r}, which is not beside it.",
            hint="Copy that file into the model's folder.",
        )
    if not found.resolve().is_relative_to(folder) or found.is_symlink():
        raise UntrustedArtifact(
            f"{source} keeps the weights {tensor!r} behind a link, {location!r}: refused."
        )
    return found


def _require_whole(entries: dict[str, str], file: Path, tensor: str, source: str) -> None:
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > file.stat().st_size:
        raise CorruptBundle(
            f"{source} reads the weights {tensor!r} beyond the end of {file.name}.",
            hint="The weights are truncated or of another model: copy them again.",
        )


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor of the model: initializers and attributes, in subgraphs and functions too."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield sparse.values
                yield sparse.indices
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            graphs.extend(attribute.graphs)
