"""A home: its settings and its registry, opened."""

from __future__ import annotations

import getpass
import os
from functools import cached_property
from pathlib import Path
from types import TracebackType

from fairway.app.settings import read_settings
from fairway.core.settings import Settings
from fairway.core.version import ModelVersion, parse_reference
from fairway.registry.registry import Registry, open_registry


class Home:
    """Where models and logs are kept, and the registry that names them. Use as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.path = Path(settings.home)

    @cached_property
    def registry(self) -> Registry:
        return open_registry(self.path, self.settings.registry)

    def find(self, name: str) -> ModelVersion:
        """The version that `name` means: `payments@champion`, `payments:3`, or of a model alone the one with the most traffic
        (the latest where it has no route). Raises ModelNotFound, VersionNotFound, AliasNotFound."""
        reference = parse_reference(name)
        if reference.alias is None and reference.version is None:
            (listed,) = self.registry.listing((reference.model,)).models
            reference = parse_reference(f"{reference.model}:{listed.route.main}")
        return self.registry.resolve(reference)

    def close(self) -> None:
        if "registry" in self.__dict__:
            self.registry.close()

    def __enter__(self) -> Home:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_home(home: str | os.PathLike[str] | None = None) -> Home:
    """The home of `read_settings`; its registry is opened at first use."""
    return Home(read_settings(home))


def current_user() -> str:
    """Who history says made a change."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
