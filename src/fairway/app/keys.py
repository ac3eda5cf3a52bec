"""API keys of a home: made, revoked, and told to the servers that start from it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from fairway.app.home import Home, current_user
from fairway.core.errors import FairwayError
from fairway.registry.snapshot import put_keys
from fairway.security.keys import AccessKey, expiry, new_key

logger = logging.getLogger("fairway.registry")


def create_key(
    home: Home,
    name: str,
    *,
    scopes: tuple[str, ...],
    models: tuple[str, ...] = (),
    expires: str | None = None,
    rate: float | None = None,
    burst: int | None = None,
    concurrency: int | None = None,
    why: str,
) -> tuple[AccessKey, str]:
    """A new key and its secret. `expires` is as `security.keys.expiry` reads it. Errors: `InvalidInput`,
    `AlreadyExists`, `ModelNotFound`."""
    now = datetime.now(UTC)
    who = current_user()
    key, secret = new_key(
        name,
        scopes=scopes,
        models=models,
        expires=None if expires is None else expiry(expires, now),
        rate=rate,
        burst=burst,
        concurrency=concurrency,
        who=who,
        now=now,
    )
    home.registry.add_key(key, who=who, why=why)
    _tell_snapshots(home)
    return key, secret


def revoke_key(home: Home, name: str, *, why: str) -> AccessKey:
    """`KeyNotFound`."""
    key = home.registry.revoke_key(name, who=current_user(), why=why)
    _tell_snapshots(home)
    return key


def _tell_snapshots(home: Home) -> None:
    """A server that starts while the registry is away must not let in a key that was revoked before."""
    revision, keys = home.registry.keys_at()
    try:
        put_keys(home.path, keys, revision)
    except FairwayError as error:
        logger.warning("a server that starts without the registry will not know of this: %s", error)
