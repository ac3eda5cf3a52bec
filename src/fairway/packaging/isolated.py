"""Packages a Python function with requirements of its own: they are locked here, and it never runs in this process."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from fairway.core.errors import CorruptBundle, EnvironmentFailed, InvalidInput, NotFound
from fairway.core.settings import IsolationSettings
from fairway.runtimes.isolated.engine import IsolatedEngine
from fairway.runtimes.isolated.environments import Environments, Lease
from fairway.runtimes.isolated.installer import Installer, open_installer, run
from fairway.runtimes.isolated.interpreters import Interpreter, find_interpreter
from fairway.runtimes.isolated.lock import Lock, LockedPackage, canonical, make_lock, read_packages
from fairway.runtimes.isolated.process import Program

NUMPY = "numpy"
"""What the program around the function needs; it is locked even where the requirements do not name it."""


@dataclass
class IsolatedFunction:
    """A function that runs in an environment of its own. Its engines live until `close`."""

    file: Path
    function: str
    lock: Lock
    lease: Lease
    settings: IsolationSettings
    threads: int = 1
    _engines: list[IsolatedEngine] = field(default_factory=list)

    def engine(self, fields: Sequence[str], dtypes: Mapping[str, str]) -> IsolatedEngine:
        """The function of the user's own file, where it lies."""
        program = Program(
            python=self.lease.python,
            file=self.file,
            function=self.function,
            fields=tuple(fields),
            dtypes=dtypes,
            label=f"{self.file.name}:{self.function}",
            threads=self.threads,
            memory_bytes=self.settings.memory_bytes,
            buffer_bytes=self.settings.buffer_bytes,
        )
        made = IsolatedEngine(program, self.settings)
        self._engines.append(made)
        return made

    def close(self) -> None:
        for engine in self._engines:
            engine.unload()
        self._engines.clear()
        self.lease.close()


def open_isolated(
    file: Path, function: str, requirements: Path, python: str | None, settings: IsolationSettings
) -> IsolatedFunction:
    """Locks the requirements and makes the environment. `python` is "3.12", a path, or None for this one's.

    Raises NotFound, InvalidInput for requirements that cannot be locked, and EnvironmentFailed.
    """
    if not file.is_file():
        raise NotFound(f"there is no file {file}.")
    lock = lock_requirements(requirements, find_interpreter(python), settings)
    return IsolatedFunction(file.resolve(), function, lock, Environments(settings).use(lock), settings)


def lock_requirements(requirements: Path, interpreter: Interpreter, settings: IsolationSettings) -> Lock:
    """Exact versions, with hashes, of what the file asks for and all that this needs, for one Python.

    pip gives the hash of the file that fits this machine; uv gives those of all platforms.
    """
    if not requirements.is_file():
        raise NotFound(f"there is no file {requirements}, which --requirements names.")
    with (
        open_installer(interpreter, settings) as installer,
        tempfile.TemporaryDirectory(prefix="fairway-lock-") as scratch,
    ):
        asked = ["-r", str(requirements)]
        if "--hash=" not in requirements.read_text(encoding="utf-8", errors="replace"):
            needed = Path(scratch) / "needed.txt"  # a file of hashes must name everything itself
            needed.write_text(f"{NUMPY}\n", encoding="ascii")
            asked += ["-r", str(needed)]
        resolve = _with_uv if installer.tool == "uv" else _with_pip
        packages = resolve(installer, interpreter, asked, Path(scratch), f"{requirements} cannot be resolved")
    lock = make_lock(interpreter.minor, packages)
    if NUMPY not in lock.versions:
        raise InvalidInput(
            f"{requirements} does not name {NUMPY}, which every model needs.",
            hint=f"Add {NUMPY} with its hashes.",
        )
    return lock


class _Archive(msgspec.Struct, frozen=True):
    hashes: dict[str, str] = {}


class _Download(msgspec.Struct, frozen=True):
    url: str
    archive_info: _Archive = _Archive()


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    version: str


class _Chosen(msgspec.Struct, frozen=True):
    metadata: _Metadata
    download_info: _Download
    is_direct: bool = False


class _Report(msgspec.Struct, frozen=True):
    """What pip says it would install."""

    install: list[_Chosen]


_WHEELS_ONLY = "Only wheels are installed: build one of a source distribution (pip wheel) and offer it to pip (find-links)."


def _with_pip(
    installer: Installer, interpreter: Interpreter, asked: list[str], scratch: Path, what: str
) -> list[LockedPackage]:
    report = scratch / "report.json"
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--no-input", "--quiet"]
    run(
        [*installer.command, "install", *options, "--report", str(report), *asked],
        installer.deadline,
        what,
        hint=_WHEELS_ONLY,
    )
    try:
        chosen = msgspec.json.decode(report.read_bytes(), type=_Report).install
    except (OSError, msgspec.MsgspecError) as error:
        raise EnvironmentFailed(f"{what}: pip's report cannot be read ({error}).") from error
    return [_locked(package) for package in chosen]


def _locked(chosen: _Chosen) -> LockedPackage:
    name = canonical(chosen.metadata.name)
    if chosen.is_direct:
        raise InvalidInput(
            f"{name} comes from an address or a folder, which a lock cannot name.",
            hint="Offer it as a wheel through an index or a folder of wheels (find-links).",
        )
    digest = chosen.download_info.archive_info.hashes.get("sha256")
    if digest is None:
        url = urlsplit(chosen.download_info.url)
        if url.scheme != "file":
            raise EnvironmentFailed(f"the index gives no sha256 of {name} {chosen.metadata.version}.")
        with Path(unquote(url.path)).open("rb") as wheel:
            digest = hashlib.file_digest(wheel, "sha256").hexdigest()
    return LockedPackage(name, chosen.metadata.version, (f"sha256:{digest}",))


def _with_uv(
    installer: Installer, interpreter: Interpreter, asked: list[str], scratch: Path, what: str
) -> list[LockedPackage]:
    files = [text for text in asked if text != "-r"]
    options = ["--python", interpreter.path, "--generate-hashes", "--only-binary", ":all:", "--quiet"]
    plain = ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    printed = run(
        [*installer.command, "compile", *options, *plain, *files], installer.deadline, what, hint=_WHEELS_ONLY
    )
    try:
        return read_packages(printed, "the answer of uv")
    except CorruptBundle as error:
        raise InvalidInput(
            f"{what}: {error}", hint="A lock can name packages of an index only, no addresses and no folders."
        ) from error
