"""Bundles on machines that only borrow them: shipped as one archive, kept by digest, loaded once a process."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from fairway.batch.local import Model, load_for_batch, open_watch
from fairway.batch.score import plan_calls
from fairway.batch.seen import Watch
from fairway.core.errors import AlreadyExists, CorruptBundle
from fairway.core.settings import RegistrySettings, Settings
from fairway.inference.live import LiveVersion
from fairway.packaging.archive import SUFFIX, archive, unarchive

_KEPT_FOLDERS = 8
_KEPT_LOADED = 2
_LEFT_SECONDS = 86_400.0
"""A folder that nobody has written to for so long was left by a process that died."""


class Loaded(msgspec.Struct, frozen=True):
    """A version in this process. `call_rows` are proved here, on this processor."""

    live: LiveVersion
    watch: Watch | None
    call_rows: int


def pack(model: Model, folder: Path) -> Path:
    """The version's bundle as one file in `folder`, named by its digest."""
    path = folder / f"{_plain(model.digest)}{SUFFIX}"
    if not path.exists():
        archive(Path(model.directory), path)
    return path


def unpack(path: Path, digest: str) -> Path:
    """The folder of the bundle in the archive `path`, unpacked once a machine and user. Raises CorruptBundle when it is
    not that of `digest`."""
    root = _own_folder()
    directory = root / _plain(digest)
    if not directory.exists():
        _make_room(root)
        try:
            bundle = unarchive(path, directory)
        except AlreadyExists:  # by another process of this machine, just now
            return directory
        if bundle.digest != digest:
            shutil.rmtree(directory)
            raise CorruptBundle(f"the bundle that was shipped is {bundle.digest}, not {digest}.")
    return directory


def unpack_bytes(content: Callable[[], bytes], digest: str) -> Path:
    """As `unpack`, of an archive that is not a file here; `content` is asked for when it is needed."""
    directory = _own_folder() / _plain(digest)
    if directory.exists():
        return directory
    with tempfile.NamedTemporaryFile(suffix=SUFFIX) as file:
        file.write(content())
        file.flush()
        return unpack(Path(file.name), digest)


_loaded: OrderedDict[tuple[str, bytes], Loaded] = OrderedDict()
_loading = threading.Lock()


def load_once(model: Model, settings: Settings, directory: Callable[[], Path]) -> Loaded:
    """The version, loaded when this process has not loaded it before; `directory` gives its bundle. At most two are
    kept. Raises what `load_version` raises."""
    key = model.digest, msgspec.json.encode(settings)
    with _loading:
        found = _loaded.get(key)
        if found is None:
            here = msgspec.structs.replace(model, directory=str(directory()))
            live = load_for_batch(here, settings, 1)
            if live.digest != model.digest:
                raise CorruptBundle(f"the bundle in {here.directory} is {live.digest}, not {model.digest}.")
            found = Loaded(live, open_watch(here, live), plan_calls(live).rows)
            _loaded[key] = found
            while len(_loaded) > _KEPT_LOADED:
                _, oldest = _loaded.popitem(last=False)
                oldest.live.engine.unload()
        _loaded.move_to_end(key)
        return found


def for_workers(settings: Settings) -> Settings:
    """What a worker on another machine needs of the settings: no registry, no keys, and no home that is not there."""
    plain = Settings()
    return msgspec.structs.replace(
        plain,
        registry=RegistrySettings(),
        serving=msgspec.structs.replace(plain.serving, engine_threads=settings.serving.engine_threads),
        batching=settings.batching,
        models=settings.models,
        isolation=settings.isolation,
        batch=msgspec.structs.replace(plain.batch, storage=settings.batch.storage),
    )


def at_home(settings: Settings) -> Settings:
    """Settings of `for_workers` on the worker, where environments of Python models are kept beside the bundles."""
    return msgspec.structs.replace(settings, home=str(_own_folder() / "home"))


def _plain(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _own_folder() -> Path:
    """Of this user alone: what is in it is loaded."""
    folder = Path(tempfile.gettempdir()) / f"fairway-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise CorruptBundle(f"{folder} belongs to somebody else, or others can write to it.")
    return folder


def _make_room(root: Path) -> None:
    """Removes the oldest bundles. Hidden folders are those that other processes are filling: many at once where a machine
    has many workers."""
    kept: list[tuple[float, Path]] = []
    for path in root.iterdir():
        try:
            changed = path.stat().st_mtime
        except FileNotFoundError:  # made room by another process
            continue
        if not path.is_dir() or path.name == "home":
            continue
        if not path.name.startswith("."):
            kept.append((changed, path))
        elif time.time() - changed > _LEFT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    kept.sort()
    for _, old in kept[: max(0, len(kept) - _KEPT_FOLDERS + 1)]:
        going = root / f".{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):
            old.rename(going)  # who looks for it now finds none, and not half of it
        shutil.rmtree(going, ignore_errors=True)
