"""Private values on their way to the log: dropped, hashed with a key, or encrypted so that only the key opens them.

A hash is HMAC-SHA256 (RFC 2104) of field and value, cut to 128 bits. A token is AES-SIV (RFC 5297), which needs no
nonce: equal values of one field give equal tokens, so they can be counted and joined, and a token that was altered does
not open. Both keys are derived from one secret of 64 random bytes (HKDF's expansion step, RFC 5869).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fairway.core.columns import Array
from fairway.core.contract import Privacy
from fairway.core.errors import InvalidInput, SettingsError

KEY_FIELD = "request key"
"""What the routing key of a request is called where it is hashed or tokenised."""
_SECRET_BYTES = 64
_MARK = "fwt1."


class Vault:
    """The key of one home's private values."""

    def __init__(self, secret: bytes) -> None:
        self._hashing = _expanded(secret, b"fairway log hash")
        self._sealing = _expanded(secret, b"fairway log token")

    def written(self, field: str, values: Array, how: Privacy) -> Array:
        """What may be written of a column: texts, null where there was no value. `drop` gives nulls."""
        texts = [None] * len(values) if how is Privacy.drop else [_text(value) for value in _listed(values)]
        change = self.hashed if how is Privacy.hash else self.sealed
        memo: dict[str, str] = {}
        for text in texts:
            if text is not None and text not in memo:
                memo[text] = change(field, text)
        result = np.empty(len(texts), dtype=object)
        result[:] = [None if text is None else memo[text] for text in texts]
        return result

    def hashed(self, field: str, text: str) -> str:
        return hmac.digest(self._hashing, field.encode() + b"\0" + text.encode(), "sha256")[:16].hex()

    def sealed(self, field: str, text: str) -> str:
        token: bytes = self._siv.encrypt(text.encode() or b"\0", [field.encode()])
        return _MARK + urlsafe_b64encode(token).decode().rstrip("=")

    def opened(self, field: str, token: str) -> str:
        """The value behind a token, as text. InvalidInput for what is no token of this field and this key."""
        try:
            if not token.startswith(_MARK):
                raise ValueError
            raw = urlsafe_b64decode(token[len(_MARK) :] + "==")
            text: bytes = self._siv.decrypt(raw, [field.encode()])
        except Exception as error:
            raise InvalidInput(
                f"{token[:60]!r} is no token of {field!r} made with this home's key (log.secret)."
            ) from error
        return "" if text == b"\0" else text.decode()

    @cached_property
    def _siv(self) -> Any:
        # Only models with tokens pay for the library.
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        return AESSIV(self._sealing)


def open_vault(path: Path) -> Vault:
    """The key at `path`, made when there is none; of several processes that make it at once, one wins.

    Raises SettingsError when it cannot be read or made, or when others may read it.
    """
    try:
        try:
            found = path.stat()
        except FileNotFoundError:
            _make(path)
            found = path.stat()
        if found.st_mode & 0o077:
            raise SettingsError(f"{path} may be read by others.", hint=f"chmod 600 {path}")
        secret = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not hexadecimal"
        raise SettingsError(
            f"the key of private fields at {path} cannot be used: {reason}.",
            hint="Make the home writable, or name another file as log.secret_file.",
        ) from error
    if len(secret) < _SECRET_BYTES:
        raise SettingsError(
            f"{path} holds {len(secret)} bytes; the key of private fields has {_SECRET_BYTES}."
        )
    return Vault(secret)


def private_text(vault: Vault | None, field: str, text: str, how: str) -> str | None:
    """One text as `how` (keep, drop, hash, token) allows it to be written; None for not at all. Without a vault,
    only what is kept as it is."""
    if how == "keep":
        return text
    if how == "drop" or vault is None:
        return None
    return vault.hashed(field, text) if how == "hash" else vault.sealed(field, text)


def private_fields(
    fields: Mapping[str, Array], rules: Mapping[str, Privacy], vault: Vault | None
) -> dict[str, Array]:
    """Columns as they may be written. A private field is left out when it is to be dropped, or when there is no key."""
    if not rules:
        return dict(fields)
    kept = {}
    for name, values in fields.items():
        how = rules.get(name)
        if how is None:
            kept[name] = values
        elif how is not Privacy.drop and vault is not None:
            kept[name] = vault.written(name, values, how)
    return kept


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(
                fresh, path
            )  # unlike a rename, this does not replace the key that another process made first
        except FileExistsError:
            return
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(
                folder
            )  # the name too: what is written with the key from now on can be read with it alone
        finally:
            os.close(folder)
    finally:
        fresh.unlink(missing_ok=True)


def _expanded(secret: bytes, purpose: bytes) -> bytes:
    return hmac.digest(secret, purpose + b"\1", hashlib.sha512)


def _listed(values: Array) -> list[Any]:
    if values.dtype.kind == "M":
        return [None if np.isnat(value) else str(value) for value in values.astype("datetime64[us]")]
    return list(values) if values.ndim > 1 else values.tolist()


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, np.ndarray):
        return msgspec.json.encode(value.tolist()).decode()
    return repr(value)
