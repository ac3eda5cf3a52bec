"""Settings from `fairway.toml` in the home, overridden by the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from fairway.core.errors import SettingsError
from fairway.core.settings import Settings

_PREFIX = "FAIRWAY_"
_PLATFORM = {
    "AIP_HTTP_PORT": ("serving", "port"),
    "AIP_HEALTH_ROUTE": ("vertex", "health_route"),
    "AIP_PREDICT_ROUTE": ("vertex", "predict_route"),
    "AIP_DEPLOYED_MODEL_ID": ("vertex", "deployed_model_id"),
    "SAGEMAKER_BIND_TO_PORT": ("serving", "port"),
    "SAGEMAKER_MODEL_SERVER_WORKERS": ("serving", "workers"),
    "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": ("sagemaker", "max_concurrent_transforms"),
    "SAGEMAKER_BATCH_STRATEGY": ("sagemaker", "batch_strategy"),
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": ("sagemaker", "max_payload_mb"),
}
"""What Vertex AI and SageMaker tell the containers they start, and the setting it is. They know better than the file,
and a variable of Fairway's own knows better than they."""


def read_settings(
    home: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Settings of a home: `home`, else `FAIRWAY_HOME`, else `~/.fairway`.

    `FAIRWAY_SERVING_PORT=9000` overrides `port` of `[serving]`, and so for every group and field; so do the variables
    that SageMaker and Vertex AI set. Raises
    SettingsError naming the file or variable and every key there is.
    """
    environ = os.environ if environ is None else environ
    folder = home_folder(home, environ)
    values = _from_file(folder / "fairway.toml")
    for variable, (group, name) in _PLATFORM.items():
        if environ.get(variable):
            values.setdefault(group, {})[name] = environ[variable]
    for group in Settings.__struct_fields__:
        if group == "home":
            continue
        for name, value in _from_environment(group, environ).items():
            values.setdefault(group, {})[name] = value
    values["home"] = str(folder)
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        unknown = "; ".join(_unknown(values, Settings, ()))
        if unknown:
            raise SettingsError(f"{folder / 'fairway.toml'} is wrong: {unknown}.") from error
        raise SettingsError(f"settings of {folder} are wrong: {error}.") from error


def _unknown(given: Any, kind: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Every name in `given` that `kind`, a struct or a table or list of structs, does not have, beside those it has."""
    if get_origin(kind) is dict and isinstance(given, dict):
        for name, value in given.items():
            yield from _unknown(value, get_args(kind)[1], (*path, name))
    elif get_origin(kind) is tuple and isinstance(given, list):
        for value in given:
            yield from _unknown(value, get_args(kind)[0], path)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(given, dict):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        for name, value in given.items():
            if name in fields:
                yield from _unknown(value, fields[name], (*path, name))
                continue
            near = get_close_matches(name, fields, n=1)
            there = (
                f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted({*fields} - {'home'}))}"
            )
            where = f"[{'.'.join(path)}]" if path else "the file"
            yield f"{where} has no {name!r} ({there})"


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
