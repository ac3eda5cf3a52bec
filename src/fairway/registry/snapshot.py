"""What a server starts from: routes, versions, and where their bundles are unpacked.

Written after the registry was read, read again at the next start when the registry's revision is still the
same, or when the registry is away. Nothing here may import SQLAlchemy, alembic or fsspec: a server starts from
this file in milliseconds.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from fairway.core.route import Route
from fairway.security.keys import AccessKey
from fairway.stores.disk import disk_errors, write_whole

FORMAT = 1


class ServedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """`directory` is the absolute path of the unpacked bundle."""

    version: int
    digest: str
    aliases: tuple[str, ...]
    directory: str


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """`versions` are those that the route and the aliases need, ascending."""

    route: Route
    versions: tuple[ServedVersion, ...]


class ServingSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The registry at `revision`. `names` are the models that were asked for; empty means all routed ones.

    `keys` are all API keys, the revoked ones too. `registry` says which registry it was, without secrets.
    """

    revision: int
    models: tuple[ServedModel, ...]
    keys: tuple[AccessKey, ...] = ()
    names: tuple[str, ...] = ()
    registry: str = ""
    format: int = FORMAT


def snapshot_path(home: Path, names: tuple[str, ...] = ()) -> Path:
    """One file per set of names, so that servers of different models on one home do not disturb each other."""
    key = hashlib.sha256("\n".join(sorted(set(names))).encode()).hexdigest()[:16] if names else "all"
    return home / "snapshots" / f"{key}.json"


def write_snapshot(home: Path, snapshot: ServingSnapshot) -> None:
    """Replaces the snapshot of the same names. Bundle folders below `home` are written relative to it.

    The file is for its owner alone: it names who may call."""
    path = snapshot_path(home, snapshot.names)
    with disk_errors("write a snapshot", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(_placed(snapshot, home, written=True)), mode=0o600)


def read_snapshot(home: Path, names: tuple[str, ...] = ()) -> ServingSnapshot | None:
    """The snapshot last written for these names, or None when there is none that this Fairway can use."""
    try:
        snapshot = msgspec.json.decode(snapshot_path(home, names).read_bytes(), type=ServingSnapshot)
    except (OSError, msgspec.MsgspecError):
        return None
    if snapshot.format != FORMAT:
        return None
    placed = _placed(snapshot, home, written=False)
    directories = [version.directory for model in placed.models for version in model.versions]
    return placed if all(Path(directory).is_dir() for directory in directories) else None


def put_keys(home: Path, keys: tuple[AccessKey, ...], revision: int) -> None:
    """Gives every snapshot of the home, older than `revision`, the keys as they are at `revision`.

    One that was up to date but for the change of a key is up to date again, so the next start stays quick.
    """
    folder = snapshot_path(home).parent
    with disk_errors("write a snapshot", folder):
        for path in sorted(folder.glob("*.json")):
            try:
                snapshot = msgspec.json.decode(path.read_bytes(), type=ServingSnapshot)
            except (FileNotFoundError, msgspec.MsgspecError):
                continue
            if snapshot.format != FORMAT or snapshot.revision >= revision:
                continue
            current = revision if snapshot.revision == revision - 1 else snapshot.revision
            told = msgspec.structs.replace(snapshot, keys=keys, revision=current)
            write_whole(path, msgspec.json.encode(told), mode=0o600)


def _placed(snapshot: ServingSnapshot, home: Path, *, written: bool) -> ServingSnapshot:
    """Folders relative to `home` when written, absolute otherwise: a home may be moved."""
    root = home.absolute()

    def place(directory: str) -> str:
        path = Path(directory)
        if written:
            return str(path.relative_to(root)) if path.is_relative_to(root) else directory
        return str(root / path)

    replace = msgspec.structs.replace
    models = tuple(
        replace(
            model,
            versions=tuple(
                replace(version, directory=place(version.directory)) for version in model.versions
            ),
        )
        for model in snapshot.models
    )
    return replace(snapshot, models=models)
