"""API keys as values: how one is made, written, read back and told from a wrong one.

A secret is `fw_<id>_<43 characters>`: the id, 12 hexadecimal digits, is public and finds the key; the rest are 32
random bytes in url-safe base64. Only the sha256 of the whole text is kept. A slow password hash would add nothing:
256 random bits cannot be guessed, and the server checks a key with every request.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import msgspec

from fairway.core.clock import utc_text
from fairway.core.errors import InvalidInput
from fairway.core.version import check_model_name

Scope = Literal["infer", "feedback", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}\Z")
_SECRET = re.compile(rb"fw_([0-9a-f]{12})_[A-Za-z0-9_-]{43}\Z")
_DURATION = re.compile(r"([0-9]{1,6})\s*([smhdwy])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
MOST_BURST = 1_000_000
MOST_CONCURRENCY = 100_000


class AccessKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a key. Times are UTC in ISO 8601.

    `hash` is the sha256 of the secret in hexadecimal. `models` are the names it may use; empty means all.
    `rate` is requests per second over all workers of a server, `burst` how many may come at once after a pause,
    `concurrency` how many may be in flight; None means no limit. A key is revoked, never deleted: a registry that
    ever had a key goes on asking for one.
    """

    name: str
    id: str
    hash: str
    scopes: tuple[Scope, ...]
    models: tuple[str, ...] = ()
    created: str
    created_by: str = ""
    expires: str | None = None
    revoked: str | None = None
    rate: float | None = None
    burst: int | None = None
    concurrency: int | None = None


def new_key(
    name: str,
    *,
    scopes: tuple[str, ...],
    models: tuple[str, ...] = (),
    expires: datetime | None = None,
    rate: float | None = None,
    burst: int | None = None,
    concurrency: int | None = None,
    who: str = "",
    now: datetime,
) -> tuple[AccessKey, str]:
    """A key and its secret, which is told here once and kept nowhere.

    `burst` is, unless given, what `rate` allows in one second and at least 1. `InvalidInput` names what cannot be.
    """
    check_key_name(name)
    if expires is not None and expires <= now:
        raise InvalidInput(f"The key would have expired at {utc_text(expires)}, which is past.")
    _check_limits(rate, burst, concurrency)
    if rate is not None and burst is None:
        burst = max(1, math.ceil(rate))
    identity = secrets.token_hex(6)
    secret = f"fw_{identity}_{secrets.token_urlsafe(32)}"
    key = AccessKey(
        name=name,
        id=identity,
        hash=secret_hash(secret.encode()),
        scopes=_known_scopes(scopes),
        models=tuple(dict.fromkeys(check_model_name(model) for model in models)),
        created=utc_text(now),
        created_by=who,
        expires=None if expires is None else utc_text(expires),
        rate=rate,
        burst=burst,
        concurrency=concurrency,
    )
    return key, secret


def secret_hash(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def secret_id(secret: bytes) -> str | None:
    """The id that a secret names; None when the text is no secret of ours."""
    found = _SECRET.match(secret)
    return None if found is None else found[1].decode()


def check_key_name(name: str) -> str:
    if not _NAME.match(name):
        raise InvalidInput(
            f"{name!r} is not a name for a key: use letters, digits, '.', '_' and '-', starting with a letter."
        )
    return name


def expiry(text: str, now: datetime) -> datetime:
    """When something ends: `90d` (s, m, h, d, w, y) from now, or a date or time in ISO 8601, UTC unless it says
    otherwise. `InvalidInput`."""
    text = text.strip()
    duration = _DURATION.match(text)
    try:
        if duration is not None:
            return now + timedelta(seconds=int(duration[1]) * _UNITS[duration[2]])
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{text!r} is not a time: write 90d, 12h, or a date such as 2030-01-31.") from None


def _known_scopes(scopes: tuple[str, ...]) -> tuple[Scope, ...]:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise InvalidInput(
            f"{unknown[0]!r} is not a scope." if unknown else "A key needs at least one scope.",
            hint=f"Scopes are {', '.join(SCOPES)}.",
        )
    return tuple(scope for scope in SCOPES if scope in scopes)


def _check_limits(rate: float | None, burst: int | None, concurrency: int | None) -> None:
    if rate is not None and not 1e-6 <= rate <= 1e6:
        raise InvalidInput(f"A rate of {rate:g} requests per second cannot be: give 0.000001 to 1000000.")
    if burst is not None and rate is None:
        raise InvalidInput("A burst without a rate limits nothing.", hint="Give the rate too.")
    if burst is not None and not 1 <= burst <= MOST_BURST:
        raise InvalidInput(f"A burst of {burst} cannot be: give 1 to {MOST_BURST}.")
    if concurrency is not None and not 1 <= concurrency <= MOST_CONCURRENCY:
        raise InvalidInput(f"A concurrency of {concurrency} cannot be: give 1 to {MOST_CONCURRENCY}.")
