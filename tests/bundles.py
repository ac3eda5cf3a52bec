"""Small bundles for tests of the registry: whole and sealed, but with an engine that nothing can load."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.bundle import FORMAT, EngineSpec, File, Manifest
from fairway.registry.registry import Registered, Registry


def make_bundle(
    directory: Path, content: bytes, *, format: int = FORMAT, extra: dict[str, bytes] | None = None
) -> str:
    """Writes a bundle and returns its digest; `content` is its engine file."""
    parts = {"engine/model.onnx": content, "contract.json": b"{}", **(extra or {})}
    files = {}
    for path, part in parts.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(part)
        files[path] = File(sha256=hashlib.sha256(part).hexdigest(), size=len(part))
    (directory / "timings.json").write_text("[]")
    return seal(directory, files, format=format)


def seal(directory: Path, files: dict[str, File], *, format: int = FORMAT) -> str:
    """Writes the manifest and returns its digest."""
    engine = EngineSpec(kind="onnx", file="engine/model.onnx")
    manifest = msgspec.json.encode(Manifest(format=format, engine=engine, files=files, made_with="test"))
    (directory / "manifest.json").write_bytes(manifest)
    return "sha256:" + hashlib.sha256(manifest).hexdigest()


def register(
    registry: Registry, directory: Path, content: bytes, name: str = "payments", **options: Any
) -> Registered:
    """Makes a bundle at `directory` and registers it."""
    digest = make_bundle(directory, content)
    settings = {"engine": "onnx", "input_signature": "s", "who": "ann", "why": "test", **options}
    return registry.register(name, directory, digest=digest, **settings)
