"""Settings from `fairway.toml` in the home, overridden by the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.errors import SettingsError
from fairway.core.settings import Settings

_PREFIX = "FAIRWAY_"


def read_settings(
    home: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Settings of a home: `home`, else `FAIRWAY_HOME`, else `~/.fairway`.

    `FAIRWAY_SERVING_PORT=9000` overrides `port` of `[serving]`, and so for every group and field. Raises
    SettingsError naming the file or variable and every key there is.
    """
    environ = os.environ if environ is None else environ
    folder = home_folder(home, environ)
    values = _from_file(folder / "fairway.toml")
    for group in Settings.__struct_fields__:
        if group == "home":
            continue
        for name, value in _from_environment(group, environ).items():
            values.setdefault(group, {})[name] = value
    values["home"] = str(folder)
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings of {folder} are wrong: {error}.") from error


def home_folder(home: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """`home`, else `FAIRWAY_HOME`, else `~/.fairway`, as an absolute path."""
    environ = os.environ if environ is None else environ
    return Path(home or environ.get(_PREFIX + "HOME") or Path.home() / ".fairway").expanduser().absolute()


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return msgspec.toml.decode(content, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from error


def _from_environment(group: str, environ: Mapping[str, str]) -> dict[str, str]:
    kind = type(getattr(Settings(), group))
    if not issubclass(kind, msgspec.Struct):  # `models` goes by names, which only the file can give
        return {}
    return {
        field: environ[variable]
        for field in kind.__struct_fields__
        if (variable := f"{_PREFIX}{group}_{field}".upper()) in environ
    }
