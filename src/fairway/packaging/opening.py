"""Opens whatever a user calls a model: told apart by its bytes, audited, then loaded."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairway.core.errors import (
    ArtifactError,
    CorruptBundle,
    FairwayError,
    InvalidInput,
    MissingExtra,
    NotFound,
    UnknownFormat,
)
from fairway.core.settings import IsolationSettings
from fairway.packaging.formats import SUPPORTED, detect, unknown
from fairway.packaging.isolated import open_isolated
from fairway.packaging.onnx_file import open_onnx
from fairway.packaging.python_file import load_function, needed_files, source_of, split_entry
from fairway.packaging.source import SourceModel
from fairway.runtimes.catboost import typed
from fairway.security.lightgbm_text import check_lightgbm
from fairway.security.pickle_file import load_pickle
from fairway.security.skops_file import load_skops


@dataclass(frozen=True)
class Requirements:
    """A requirements file, and the Python it is for: "3.12", a path, or None for this one's."""

    file: Path
    python: str | None
    settings: IsolationSettings


def open_model(
    model: object | str | Path,
    *,
    trust: tuple[str, ...] = (),
    files: tuple[str | Path, ...] = (),
    requirements: Requirements | None = None,
) -> SourceModel:
    """Opens a model file, "file.py:function", or a live object.

    `trust` are the exact `module.name`s a pickle or skops file may use besides the allow-list; `files` are what
    a Python function needs besides the modules of its folder that it imports, relative to that folder.
    `requirements` are packages of a function's own, in an environment of its own: close the source then. Raises
    `UntrustedArtifact`, `UnknownFormat`, `CorruptBundle`, `EnvironmentMismatch`, `MissingExtra` or `NotFound`.
    """
    if requirements is not None:
        return _isolated(model, files, requirements)
    if isinstance(model, str):
        entry = split_entry(model)
        if entry is not None and not Path(model).exists():
            return _python(*entry, files)
    if isinstance(model, (str, Path)):
        return _open_file(Path(model), trust)
    return _live(model, files)


def _open_file(path: Path, trust: tuple[str, ...]) -> SourceModel:
    if path.is_dir():
        raise unknown(str(path), _directory(path), "Give the model file inside it.")
    if not path.exists():
        raise NotFound(f"there is no file {path}.", hint=f"Fairway reads {SUPPORTED}.")
    if path.suffix == ".py":
        raise UnknownFormat(f"{path} is a Python file.", hint=f"Say which function predicts: {path}:predict")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    if not data:
        raise CorruptBundle(f"{path} is empty.", hint="It was not written to its end: save or copy it again.")
    source = str(path)
    kind = detect(data, source)
    if kind == "pickle":
        return _opened(_from_pickle(data, path, trust), path)
    if kind == "skops":
        return _opened(_optional("skops", "sklearn", load_skops, data, trust, source=source), path)
    if kind == "xgboost":
        return _opened(_optional("xgboost", "xgboost", _xgboost, data, source), path)
    if kind == "lightgbm":
        return _opened(_optional("lightgbm", "lightgbm", _lightgbm, data, source), path)
    if kind in ("catboost", "catboost-json"):
        return _opened(_optional("catboost", "catboost", _catboost, data, source, kind), path)
    content, weights = open_onnx(data, path)
    return SourceModel("onnx", content, path=path, files=weights)


def _from_pickle(data: bytes, path: Path, trust: tuple[str, ...]) -> Any:
    try:
        return load_pickle(data, trust=trust, source=str(path), folders=(path.resolve().parent, Path.cwd()))
    except UnknownFormat as error:
        if "not a pickle" not in str(error):
            raise
        raise unknown(str(path), f"of no kind known here (it begins with {data[:8]!r})") from error


def _opened(model: Any, path: Path) -> SourceModel:
    return SourceModel(_kind(model, str(path)), model, path=path)


def _live(model: object, files: tuple[str | Path, ...]) -> SourceModel:
    if _is(model, "onnx", "ModelProto"):
        content, _ = open_onnx(model.SerializeToString(), None)  # type: ignore[attr-defined]
        return SourceModel("onnx", content)
    if callable(model) and not hasattr(model, "predict") and not _is(model, "torch", "Module"):
        file, name = source_of(model)
        needed = needed_files(file, files)
        return SourceModel("python", model, path=file.resolve(), entry=f"{file.name}:{name}", files=needed)
    return SourceModel(_kind(model, f"this {type(model).__name__}"), model)


def _python(file: Path, function: str, files: tuple[str | Path, ...]) -> SourceModel:
    model = load_function(file, function)
    needed = needed_files(file, files)
    return SourceModel("python", model, path=file.resolve(), entry=f"{file.name}:{function}", files=needed)


def _isolated(model: object, files: tuple[str | Path, ...], requirements: Requirements) -> SourceModel:
    entry = split_entry(model) if isinstance(model, str) else None
    if entry is None:
        raise InvalidInput(
            "requirements of its own are for a Python function, given as file.py:function.",
            hint="Write a function that loads the model and answers rows, and give it the model's file (--file).",
        )
    file, function = entry
    needed = needed_files(file, files) if file.is_file() else {}
    isolated = open_isolated(file, function, requirements.file, requirements.python, requirements.settings)
    return SourceModel(
        "python", None, path=file.resolve(), entry=f"{file.name}:{function}", files=needed, isolated=isolated
    )


def _kind(model: Any, source: str) -> str:
    """The kind of a live object. Raises `UnknownFormat` when it is no model, `ArtifactError` when not fitted."""
    if _is(model, "xgboost", "Booster"):
        return "xgboost"
    if _is(model, "lightgbm", "Booster"):
        return "lightgbm"
    if _is(model, "catboost", "CatBoost"):
        _require(bool(model.is_fitted()), source)
        return "catboost"
    if _is(model, "torch", "Module"):
        raise unknown(source, "a PyTorch module", "Export it to ONNX: torch.onnx.export.")
    if _is(model, "keras", "Model") or _is(model, "tensorflow", "Module"):
        raise unknown(source, "a Keras or TensorFlow model", "Export it to ONNX (tf2onnx).")
    if isinstance(model, dict):
        names = ", ".join(repr(key) for key in list(model)[:8])
        raise unknown(
            source, f"a dict with the keys {names}", "Package the model in it, best as one pipeline."
        )
    if not hasattr(model, "predict"):
        raise unknown(source, f"a {type(model).__module__}.{type(model).__name__}, which has no predict()")
    if _is(model, "sklearn", "BaseEstimator"):
        from sklearn.exceptions import NotFittedError  # optional: the model brought scikit-learn along
        from sklearn.utils.validation import check_is_fitted

        try:
            check_is_fitted(model)
        except NotFittedError:
            _require(False, source)
    return "sklearn"


def _require(fitted: bool, source: str) -> None:
    if not fitted:
        raise ArtifactError(f"{source} is not fitted.", hint="Call fit() before packaging it.")


def _is(model: object, package: str, name: str) -> bool:
    """Whether an object's class, or one it inherits from, is `name` of `package`; imports nothing."""
    return any(
        cls.__name__ == name and (cls.__module__ == package or cls.__module__.startswith(f"{package}."))
        for cls in type(model).__mro__
    ) or (name == "ModelProto" and type(model).__name__ == name and package in type(model).__module__)


def _optional(package: str, extra: str, load: Any, *arguments: Any, **named: Any) -> Any:
    """Calls a loader whose library may be missing, and wraps what the library itself raises."""
    source = next(a for a in (*arguments, *named.values()) if isinstance(a, str))
    try:
        return load(*arguments, **named)
    except FairwayError:
        raise
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{source} is a model of {package}, and {error.name!r} is not installed.",
            hint=f"Install it with: pip install 'fairway[{extra}]'",
        ) from error
    except Exception as error:
        raise CorruptBundle(
            f"{package} cannot load {source}: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}",
            hint="It is truncated, altered, or of another version of the library: save it again.",
        ) from error


def _xgboost(data: bytes, _source: str) -> Any:
    """A Booster, or the scikit-learn wrapper it was saved by, which XGBoost notes in the booster's attributes."""
    import xgboost  # optional

    booster = xgboost.Booster()
    booster.load_model(bytearray(data))
    noted = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
    wrappers = {
        "classifier": xgboost.XGBClassifier,
        "regressor": xgboost.XGBRegressor,
        "ranker": xgboost.XGBRanker,
    }
    if noted not in wrappers:
        return booster
    wrapper = wrappers[noted]()
    wrapper.load_model(bytearray(data))
    return wrapper


def _lightgbm(data: bytes, source: str) -> Any:
    """A Booster; its objective says whether it classifies."""
    import lightgbm  # optional

    text = data.decode("utf-8")
    check_lightgbm(text, source)
    return lightgbm.Booster(model_str=text)


def _catboost(data: bytes, source: str, kind: str) -> Any:
    """A CatBoostClassifier or CatBoostRegressor, by the loss it was trained with."""
    import catboost  # optional

    if kind == "catboost":
        _check_length(data, source)
    return typed(_catboost_as(catboost.CatBoost(), data, kind))


def _check_length(data: bytes, source: str) -> None:
    """A .cbm is "CBM1", the size of its core as 32 bits, the core, and what else it needs. CatBoost's reader does not
    look whether the core is all there, and may crash where it is not."""
    announced = int.from_bytes(data[4:8], "little")
    if len(data) < 8 + announced:
        raise CorruptBundle(
            f"{source} is a CatBoost model cut short: it announces {announced + 8:,} bytes and has {len(data):,}.",
            hint="Copy or save it again.",
        )


def _catboost_as(model: Any, data: bytes, kind: str) -> Any:
    if kind == "catboost":
        return model.load_model(blob=data)
    with tempfile.TemporaryDirectory() as folder:  # CatBoost reads JSON from paths alone
        path = Path(folder) / "model.json"
        path.write_bytes(data)
        return model.load_model(str(path), format="json")


def _directory(path: Path) -> str:
    if (path / "MLmodel").is_file():
        return "a directory with an MLflow model"
    if (path / "saved_model.pb").is_file():
        return "a directory with a TensorFlow SavedModel"
    if (path / "manifest.json").is_file() and (path / "contract.json").is_file():
        return "a packaged Fairway bundle already (register it instead)"
    names = sorted(item.name for item in path.iterdir())[:4]
    return f"a directory ({', '.join(names) or 'empty'})"
