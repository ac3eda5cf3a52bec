"""Refuses models saved by another version of their library, which may load and then predict something else."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from fairway.core.errors import EnvironmentMismatch


def require_same_versions(saved: tuple[str, ...], source: str) -> None:
    """`saved` are the scikit-learn versions a file's estimators name. Raises `EnvironmentMismatch`."""
    try:
        installed = version("scikit-learn")
    except PackageNotFoundError:
        return  # the caller says better that it is missing
    for other in saved:
        if other != installed:
            raise _other_sklearn(other, installed, source)


@contextmanager
def version_warnings_refused(source: str) -> Iterator[None]:
    """While a model is opened, turns what libraries only warn about into `EnvironmentMismatch`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        saved = getattr(warning.message, "original_sklearn_version", None)
        if saved is not None:
            raise _other_sklearn(str(saved), version("scikit-learn"), source)
        if "older version of XGBoost" in str(warning.message):
            raise EnvironmentMismatch(
                f"{source} was pickled with an older XGBoost than the installed {version('xgboost')}.",
                hint="With that older version, save it as JSON (model.save_model('model.json')) and package that.",
            )


def _other_sklearn(saved: str, installed: str, source: str) -> EnvironmentMismatch:
    return EnvironmentMismatch(
        f"{source} was saved with scikit-learn {saved}, and {installed} is installed.",
        hint=f"Install the version it was saved with: pip install scikit-learn=={saved}",
    )
