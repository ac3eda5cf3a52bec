"""Opens a pickle or joblib file that the audit passed, and nothing but what the audit saw."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from fairway.core.errors import (
    ArtifactError,
    FairwayError,
    MissingExtra,
    UntrustedArtifact,
)
from fairway.security.allow_list import today
from fairway.security.compression import decompressed
from fairway.security.pickle_audit import PickleAudit, audit_pickle, require_passed
from fairway.security.pickle_values import Global
from fairway.security.saved_versions import require_same_versions, version_warnings_refused
from fairway.security.tree_bounds import check_trees

_PythonUnpickler: Any = vars(pickle)["_Unpickler"]
_BUILD = pickle.BUILD[0]
_EXTRAS = {
    "sklearn": "sklearn",
    "joblib": "sklearn",
    "scipy": "sklearn",
    "pandas": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
}


def load_pickle(
    data: bytes, *, trust: tuple[str, ...] = (), source: str = "the file", folders: tuple[Path, ...] = ()
) -> Any:
    """The object in a pickle or joblib file, compressed or not.

    `trust` are exact `module.name`s allowed besides the list; their modules are also looked for in `folders`.
    Raises `UntrustedArtifact` before anything is run, `EnvironmentMismatch` when it was saved by another
    scikit-learn, `MissingExtra` when a library is not installed, `CorruptBundle` and `UnknownFormat`.
    """
    plain = decompressed(data, source)
    audit = audit_pickle(plain, trust=trust)
    if all(name.startswith("sklearn.") for name in audit.refused) and not audit.acts:
        require_same_versions(
            audit.versions, source
        )  # an unknown scikit-learn name has most likely moved since
    require_passed(audit, source)
    _require_installed(audit, source)
    with version_warnings_refused(source), importable(folders if trust else ()):
        try:
            model = _unpickled(plain, audit)
        except FairwayError:
            raise
        except Exception as error:
            raise ArtifactError(
                f"{source} passed the audit but cannot be opened here: {type(error).__name__}: {error}",
                hint=_opening_hint(error, trust),
            ) from error
    check_trees(model)
    return model


def _unpickled(data: bytes, audit: PickleAudit) -> Any:
    names = frozenset(audit.names)

    class Unpickler(_PythonUnpickler):  # type: ignore[misc]
        """The same machine the audit ran, with the same names."""

        dispatch = dict(_PythonUnpickler.dispatch)  # noqa: RUF012 - the library's own layout

        def __init__(self, stream: io.BytesIO) -> None:
            super().__init__(stream, fix_imports=False)
            # what joblib's array reader asks of an unpickler
            self.file_handle = stream
            self.mmap_mode = None
            self.np = import_module("numpy")

        def find_class(self, module: str, name: str) -> Any:
            wanted = today(module, name)
            if wanted.dotted not in names:
                raise UntrustedArtifact(
                    f"asked for {wanted.dotted}, which the audit did not see.", (wanted.dotted,)
                )
            return _resolved(wanted)

        def load_build(self) -> None:
            super().load_build()
            made = self.stack[-1]
            if type(made).__module__ == "joblib.numpy_pickle" and type(made).__name__ == "NumpyArrayWrapper":
                if (
                    made.dtype.hasobject
                ):  # a pickle inside the pickle: joblib before 1.6 would open it unguarded
                    self.stack[-1] = Unpickler(self.file_handle).load()
                else:
                    self.stack[-1] = made.read(self, True)

    Unpickler.dispatch[_BUILD] = Unpickler.load_build
    return Unpickler(io.BytesIO(data)).load()


def _resolved(wanted: Global) -> Any:
    found: Any = import_module(wanted.module)
    for part in wanted.name.split("."):
        found = getattr(found, part)
    return found


def _require_installed(audit: PickleAudit, source: str) -> None:
    for package in sorted({name.partition(".")[0] for name in audit.names} & set(_EXTRAS)):
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"{source} holds a model of {package}, which is not installed.",
                hint=f"Install it with: pip install 'fairway[{_EXTRAS[package]}]'",
            ) from error


def _opening_hint(error: Exception, trust: tuple[str, ...]) -> str:
    if isinstance(error, (ModuleNotFoundError, AttributeError, ImportError)):
        if any(name.startswith("__main__.") for name in trust):
            return (
                "A class of __main__ exists only in the script that made it: move it to a module, save again."
            )
        return "Its code must be importable here: install it, or put its module beside the model file."
    return "Open it with the package versions it was saved with, and save it again."


@contextmanager
def importable(folders: tuple[Path, ...]) -> Iterator[None]:
    """Lets trusted modules be found beside the model, after everything installed, never before."""
    added = [str(folder) for folder in folders if str(folder) not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            if folder in sys.path:
                sys.path.remove(folder)
