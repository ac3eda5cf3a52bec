"""Tells what a model file is by its bytes, never by its name."""

from __future__ import annotations

import zipfile
from io import BytesIO

import msgspec

from fairway.core.errors import UnknownFormat
from fairway.security.compression import compression_of
from fairway.security.skops_file import SCHEMA

SUPPORTED = (
    "scikit-learn (.joblib, .pkl, .skops), XGBoost (.json, .ubj), LightGBM (.txt), CatBoost (.cbm), "
    "ONNX (.onnx) and Python (file.py:function)"
)

# (offset, bytes) -> what it is, and the way to something that is read here.
_NOT_READ: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the model itself", "Fetch it with: git lfs pull"),
    (0, b"\x89HDF", "an HDF5 file (Keras, or PyTables)", "Export the model to ONNX (tf2onnx)."),
    (257, b"ustar", "a tar archive", "Unpack it and give the model file inside."),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it and give the model file inside."),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard-compressed file", "Unpack it and give the model file inside."),
    (0, b"PAR1", "a Parquet file: data, not a model", "Give it with --data, and the model first."),
    (0, b"ARROW1", "an Arrow file: data, not a model", "Give it with --data, and the model first."),
    (0, b"\x93NUMPY", "a numpy array: data, not a model", "Give it with --data, and the model first."),
    (0, b"\x7fELF", "a program", "Give the model file."),
    (0, b"MZ", "a program", "Give the model file."),
    (
        0,
        b"binf",
        "XGBoost's old binary format",
        "Load it with XGBoost 1.x or 2.x and save_model('model.json').",
    ),
    (4, b"TFL3", "a TensorFlow Lite model", "Export the model to ONNX (tf2onnx)."),
)
_XGBOOST_UBJ = b"{L\x00\x00\x00\x00\x00\x00\x00"


def detect(data: bytes, source: str) -> str:
    """skops, xgboost, lightgbm, catboost, catboost-json, onnx or pickle (joblib's files are pickles).

    Raises `UnknownFormat` naming what was found instead and what is read here.
    """
    for offset, magic, what, hint in _NOT_READ:
        if data[offset : offset + len(magic)] == magic:
            raise unknown(source, what, hint)
    if data[8:10] == b'{"' and int.from_bytes(data[:8], "little") < len(data):
        raise unknown(source, "a safetensors file: weights without a model", "Export the model to ONNX.")
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(data, source)
    if data.startswith(b"CBM1"):
        return "catboost"
    if data.startswith((b"tree\n", b"tree\r\n")):
        return "lightgbm"
    if data.startswith(_XGBOOST_UBJ):
        return "xgboost"
    if data.lstrip()[:1] == b"{":
        return _json(data, source)
    if compression_of(data) or data[:1] == b"\x80":
        return "pickle"
    if _is_onnx(data):
        return "onnx"
    if data.lstrip()[:1] == b"<":
        raise unknown(
            source, "HTML or XML text", "If this is PMML, convert it to ONNX; else download it again."
        )
    return "pickle"  # protocols 0 and 1 have no mark of their own: the audit decides


def unknown(source: str, what: str, hint: str | None = None) -> UnknownFormat:
    return UnknownFormat(f"{source} is {what}. Fairway reads {SUPPORTED}.", hint=hint)


def _zip(data: bytes, source: str) -> str:
    try:
        names = zipfile.ZipFile(BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return "skops"  # its reader says what is broken
    if SCHEMA in names:
        return "skops"
    if any(name.endswith("data.pkl") for name in names):
        raise unknown(source, "a PyTorch file", "Export the model to ONNX: torch.onnx.export.")
    if any(name.endswith((".npy", "keras_metadata.pb")) for name in names):
        raise unknown(source, "a numpy archive (.npz): data, not a model")
    if "metadata.json" in names and "model.weights.h5" in names:
        raise unknown(source, "a Keras file", "Export the model to ONNX (tf2onnx).")
    raise unknown(
        source, f"a zip archive ({', '.join(names[:3])}, ...)", "Unpack it and give the model file inside."
    )


def _json(data: bytes, source: str) -> str:
    try:
        keys = set(msgspec.json.decode(data, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, RecursionError) as error:
        raise unknown(
            source, f"broken JSON ({error})", "It is truncated or altered: copy it again."
        ) from error
    if "learner" in keys:
        return "xgboost"
    if "oblivious_trees" in keys or {"features_info", "model_info"} <= keys:
        return "catboost-json"
    if "tree_info" in keys:
        raise unknown(
            source,
            "LightGBM's JSON dump, which LightGBM itself cannot load",
            "Save the booster with booster.save_model('model.txt').",
        )
    raise unknown(source, f"JSON with the keys {', '.join(sorted(keys)[:5])}")


def _is_onnx(data: bytes) -> bool:
    """A ModelProto begins with its IR version: field 1, a small number."""
    return data[:1] == b"\x08" and len(data) > 2 and 1 <= data[1] <= 30
