"""Secrets by reference: read each time they are used, so that they can be exchanged, and never shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fairway.core.errors import SettingsError

_MOST_BYTES = 64 * 1024


def is_reference(text: str) -> bool:
    return text.startswith(("env:", "file:"))


class Secret:
    """A setting that is `env:VARIABLE`, `file:PATH`, or the value itself."""

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        self._text = text
        self._environ = environ

    def __repr__(self) -> str:
        return f"Secret({self._text if is_reference(self._text) else '...'})"

    def __bool__(self) -> bool:
        return bool(self._text)

    def read(self) -> str:
        """The value without white space around it. SettingsError when it is not there or empty."""
        kind, _, name = self._text.partition(":")
        if not is_reference(self._text):
            return self._text
        value = self._environ.get(name, "") if kind == "env" else _read(Path(name).expanduser())
        if not value.strip():
            raise SettingsError(f"{self._text} is empty.", hint="Set it where Fairway is started.")
        return value.strip()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise SettingsError(f"file:{path} is too large for a secret.")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"file:{path} cannot be read: {reason}.") from error
