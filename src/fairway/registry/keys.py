"""API keys in the registry's rows: added and revoked inside a transaction, with a line of history each.

The history of keys stands under no model. It tells what a key may do, never its secret or the hash of it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fairway.core.clock import utc_now
from fairway.core.errors import AlreadyExists, KeyNotFound
from fairway.registry.changes import change
from fairway.registry.lookup import latest_version
from fairway.security.keys import AccessKey, check_key_name
from fairway.stores.base import Rows

HISTORY = ""
"""What stands for the model in the history of keys; no model can have this name."""


def add_key(rows: Rows, key: AccessKey, *, who: str, why: str) -> AccessKey:
    """Errors: `AlreadyExists`, `ModelNotFound`."""
    check_key_name(key.name)
    known = _active(rows, key.name)
    if known is not None or any(other.id == key.id for other in rows.access_keys()):
        raise AlreadyExists(
            f"There is a key {key.name!r} already.",
            hint=f"Choose another name, or revoke it first: fairway keys revoke {key.name}",
        )
    for model in key.models:
        latest_version(rows, model)
    rows.put_access_key(key)
    rows.append(change(HISTORY, f"key:{key.name}", None, described(key), who, why))
    return key


def revoke_key(rows: Rows, name: str, *, who: str, why: str) -> AccessKey:
    """`KeyNotFound` when no key of that name is in use."""
    key = _active(rows, name)
    if key is None:
        raise _no_such_key(rows, name)
    revoked = msgspec.structs.replace(key, revoked=utc_now())
    rows.put_access_key(revoked)
    rows.append(change(HISTORY, f"key:{name}", described(key), described(revoked), who, why))
    return revoked


def described(key: AccessKey) -> dict[str, Any]:
    """A key for people and the history: everything but the hash."""
    fields: dict[str, Any] = msgspec.structs.asdict(key)
    del fields["hash"]
    return fields


def _active(rows: Rows, name: str) -> AccessKey | None:
    return next((key for key in rows.access_keys() if key.name == name and key.revoked is None), None)


def _no_such_key(rows: Rows, name: str) -> KeyNotFound:
    keys = rows.access_keys()
    before = [key.revoked for key in keys if key.name == name]
    if before:
        return KeyNotFound(f"The key {name!r} was revoked already, at {before[-1]}.")
    known = ", ".join(sorted(key.name for key in keys if key.revoked is None)) or "none"
    return KeyNotFound(f"There is no key {name!r}.", hint=f"Keys in use: {known}.")
