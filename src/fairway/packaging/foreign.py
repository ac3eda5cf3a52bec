"""A bundle from somewhere else: what in it would run as code here, and who said that it may."""

from __future__ import annotations

from fairway.core.errors import UntrustedArtifact
from fairway.packaging.bundle import Bundle
from fairway.security.skops_file import is_allowed


def code_of(bundle: Bundle) -> tuple[str, ...]:
    """What the bundle would run that no allow-list covers: Python files and locks of packages by path, types by `module.name`."""
    files = sorted(path for path in bundle.manifest.files if path.endswith((".py", ".lock")))
    types = sorted(name for name in bundle.spec.trusted if not is_allowed(name))
    return (*files, *types)


def require_trusted_code(bundle: Bundle, trust: tuple[str, ...]) -> None:
    """Raises UntrustedArtifact unless `trust` names every one of `code_of`.

    A bundle says itself which types its model may build, so one that somebody else made must not be believed.
    """
    refused = tuple(name for name in code_of(bundle) if name not in trust)
    if refused:
        flags = " ".join(f"--trust {name}" for name in refused)
        raise UntrustedArtifact(
            f"{bundle.directory} would run code that is not on the allow-list: {', '.join(refused)}. Nothing was run.",
            refused,
            hint=f"Only if you know this code and where the bundle comes from, allow it with: {flags}",
        )
