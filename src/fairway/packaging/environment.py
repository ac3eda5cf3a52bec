"""The environment a bundle was proved in, and whether this one is close enough to trust the same answers.

A server imports this module: it asks only `importlib.metadata` and imports none of the packages.
"""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from fairway.core.bundle import EngineSpec, Environment
from fairway.core.errors import EnvironmentMismatch

RECORDED = (
    *("fairway", "numpy", "onnxruntime", "onnx", "msgspec", "pandas", "pyarrow", "scipy", "joblib"),
    *("scikit-learn", "skl2onnx", "skops", "xgboost", "lightgbm", "catboost"),
)
"""Distributions whose versions can change an answer or the way a model was converted."""

PYTHON = "python"
"""Stands among the required names when the user's own code is part of the model."""
_ENGINE_NEEDS = {
    "onnx": ("onnxruntime",),
    "native:sklearn": ("scikit-learn",),
    "native:xgboost": ("xgboost",),
    "native:lightgbm": ("lightgbm",),
    "native:catboost": ("catboost",),
    "native:python": (),
}
_AT_LEAST = frozenset({"onnxruntime"})
"""Runs every graph that an older release ran, so a newer one is fine and an older one is not."""
_SAME_MAJOR = frozenset({"numpy", "pandas", "scipy"})
"""Keep their promises within a major version; all other required packages must have the same minor version."""


def capture_environment(spec: EngineSpec, *, needs: tuple[str, ...] = ()) -> Environment:
    """This process's environment, for a bundle with this engine.

    `needs` are further distributions the model runs on, such as xgboost inside a scikit-learn pipeline.
    """
    packages = {name: found for name in RECORDED if (found := installed(name)) is not None}
    required = [*_ENGINE_NEEDS.get(spec.kind, ()), *needs]
    if spec.kind == "native:python" or spec.prepare is not None:
        required += [PYTHON, "numpy", "pandas"]
    return Environment(
        python=platform.python_version(),
        platform=f"{sys.platform}-{platform.machine()}",
        packages=packages | {name: found for name in needs if (found := installed(name)) is not None},
        required=tuple(
            name for name in dict.fromkeys(required) if name == PYTHON or installed(name) is not None
        ),
    )


def locked_environment(python: str, packages: dict[str, str]) -> Environment:
    """The environment of a model that has one of its own. It needs nothing of the server's."""
    return Environment(
        python=python, platform=f"{sys.platform}-{platform.machine()}", packages=packages, required=()
    )


def installed(name: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_environment(environment: Environment) -> None:
    """Raises EnvironmentMismatch, with the command that mends it, when a difference here matters.

    Required packages must be there in the same minor version (numpy, pandas, scipy: major version;
    onnxruntime: the same or a newer one); the user's own code also needs the same minor version of Python.
    """
    wrong: list[str] = []
    mend: list[str] = []
    for name in environment.required:
        if name == PYTHON:
            continue
        wanted = environment.packages[name]
        found = installed(name)
        if found is None:
            wrong.append(f"{name} {wanted} is not installed")
        elif not _close_enough(name, wanted, found):
            wrong.append(f"{name} is {found} and the model was proved with {wanted}")
        else:
            continue
        mend.append(f"'{name}>={wanted}'" if name in _AT_LEAST else f"{name}=={wanted}")
    if mend:
        raise EnvironmentMismatch(
            f"This environment differs where it matters: {'; '.join(wrong)}.",
            hint=f"Mend it with: {sys.executable} -m pip install {' '.join(mend)}",
        )
    if PYTHON in environment.required and _numbers(environment.python)[:2] != sys.version_info[:2]:
        minor = ".".join(map(str, _numbers(environment.python)[:2]))
        raise EnvironmentMismatch(
            f"The model's own code was proved with Python {environment.python}; this is {platform.python_version()}.",
            hint=f"Mend it with: uv venv --python {minor} && uv pip install 'fairway=={environment.packages.get('fairway', '')}'",
        )


def _close_enough(name: str, wanted: str, found: str) -> bool:
    before, now = _numbers(wanted), _numbers(found)
    if name in _AT_LEAST:
        return before[:1] == now[:1] and now[:2] >= before[:2]
    parts = 1 if name in _SAME_MAJOR else 2
    return before[:parts] == now[:parts]


def _numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version: (1, 27, 0) of "1.27.0rc1"."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
