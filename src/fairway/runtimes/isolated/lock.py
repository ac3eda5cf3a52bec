"""The lock of an environment: exact versions with hashes, for one minor version of Python. Part of the bundle.

    # python 3.12
    numpy==1.26.4 \\
        --hash=sha256:...

It names no index and no file: a registry is the business of the machine that installs, and the hashes say what it
may give. Reading refuses everything else that a requirements file may hold, because a lock comes with a bundle and
a bundle may come from anywhere.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from fairway.core.errors import CorruptBundle
from fairway.core.listing import listed

LOCK = "environment/requirements.lock"
"""Where a bundle keeps it."""

_PYTHON = re.compile(r"# python (3\.\d{1,2})")
_PACKAGE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?==(?P<version>[A-Za-z0-9.!+_-]+)")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


class LockedPackage(msgspec.Struct, frozen=True):
    """`hashes` are "sha256:..." of the files that may be installed."""

    name: str
    version: str
    hashes: tuple[str, ...]


class Lock(msgspec.Struct, frozen=True):
    """`python` is a minor version such as "3.12"; `packages` are by name, ascending."""

    python: str
    packages: tuple[LockedPackage, ...]

    @property
    def text(self) -> str:
        lines = [f"# python {self.python}"]
        for package in self.packages:
            lines.append(" \\\n    ".join([f"{package.name}=={package.version}", *_options(package)]))
        return "\n".join(lines) + "\n"

    @property
    def digest(self) -> str:
        """64 hexadecimal digits: the identity of the environment."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def versions(self) -> dict[str, str]:
        return {package.name: package.version for package in self.packages}

    def described(self, most: int = 8) -> str:
        """Such as `Python 3.12 with numpy 1.26.4, pandas 2.1.0`."""
        names = [f"{package.name} {package.version}" for package in self.packages]
        return f"Python {self.python} with {listed(names, most)}"


def _options(package: LockedPackage) -> list[str]:
    return [f"--hash={value}" for value in package.hashes]


def make_lock(python: str, packages: list[LockedPackage]) -> Lock:
    """A lock in its one order, so that the same packages give the same digest."""
    named = [
        msgspec.structs.replace(
            package, name=canonical(package.name), hashes=tuple(sorted(set(package.hashes)))
        )
        for package in packages
    ]
    return Lock(python, tuple(sorted(named, key=lambda package: package.name)))


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(content: bytes, where: str) -> Lock:
    """Raises CorruptBundle naming the line that is neither a pinned package with its hashes nor the Python version."""
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise CorruptBundle(f"{where} is not a lock: {error}.") from error
    first, _, rest = text.partition("\n")
    python = _PYTHON.fullmatch(first)
    if python is None:
        raise CorruptBundle(f"{where} is not a lock: it does not begin with '# python 3.x'.")
    return make_lock(python[1], read_packages(rest, where))


def read_packages(text: str, where: str) -> list[LockedPackage]:
    """The packages of a requirements file in which everything is pinned and hashed."""
    packages: list[LockedPackage] = []
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        package = _PACKAGE.fullmatch(words[0])
        hashes = [_HASH.fullmatch(word) for word in words[1:]]
        if package is None or not hashes or any(value is None for value in hashes):
            raise CorruptBundle(
                f"{where} is not a lock: {line.strip()[:100]!r} is no package with its exact version and hashes."
            )
        found = tuple(value[1] for value in hashes if value is not None)
        packages.append(LockedPackage(package["name"], package["version"], found))
    names = [canonical(package.name) for package in packages]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CorruptBundle(f"{where} names packages twice: {', '.join(twice)}.")
    return packages
