"""Who is calling and what they may do: a pure decision over the keys of one snapshot.

A registry that never had a key asks for none, and its admin API is off. One that has, or had, a key asks every caller
for one. Answers tell callers about their own key only: an unknown secret is refused with the same words and the same
work whatever keys there are, and a model is refused before anybody looks whether it exists.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from fairway.core.errors import Forbidden, Unauthenticated
from fairway.security.keys import AccessKey, Scope, secret_hash, secret_id

_MEMO = 4096
_NOBODY = "0" * 64  # compared with when there is no such key, so that the work is the same
_HOW = "Send it as 'Authorization: Bearer fw_...' or as 'X-API-Key: fw_...'."


class Caller(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One key, ready to be asked. `models` is None when it may use all; `expires` is seconds since 1970.

    `limited` says whether `Limits.enter` and `leave` have anything to do for it.
    """

    name: str = ""
    id: str = ""
    scopes: frozenset[str] = frozenset()
    models: frozenset[str] | None = None
    expires: float = math.inf
    rate: float | None = None
    burst: int = 1
    concurrency: int | None = None
    limited: bool = False


ANYBODY = Caller()
"""The caller where no key is asked for."""


class Access:
    """The keys of one snapshot, compiled. A new snapshot gets a new one, so nothing remembered outlives a revocation.

    Safe from any thread.
    """

    def __init__(self, keys: Iterable[AccessKey] = (), *, open_admin: bool = False) -> None:
        """With `open_admin`, the admin API answers without a key while there are no keys (`access.open_admin`)."""
        self._keys = {key.id: (key, _caller(key)) for key in keys}
        self._open_admin = open_admin
        self._admin_exists = any(
            "admin" in key.scopes and key.revoked is None for key, _ in self._keys.values()
        )
        self._named = {caller.name: caller for key, caller in self._keys.values() if key.revoked is None}
        self._memo: dict[bytes, Caller] = {}
        self.required = bool(self._keys)
        """Whether callers need a key: as soon as there is one, even if it was revoked since."""

    def check(
        self, secret: bytes | None, scope: Scope, model: str | None, now: float, client: str | None = None
    ) -> Caller:
        """The caller, if they may do this.

        `secret` is the value of the header as it came, with or without `Bearer `; see `presented`. `model` is None
        where the request names none. `now` is seconds since 1970. `client` is the name in a verified client
        certificate, where `tls.client_names` says that it stands for the key of that name; it counts when there is
        no secret. Raises `Unauthenticated` or `Forbidden`.
        """
        if secret is not None:
            caller = self._memo.get(secret)
            if (
                caller is not None
                and now < caller.expires
                and scope in caller.scopes
                and (caller.models is None or model in caller.models)
            ):
                return caller
        if not self.required:
            if scope == "admin" and not self._open_admin:
                raise _admin_is_off()
            return ANYBODY
        caller = _current(self._recognise(secret, client), now)
        self._check_reach(caller, scope, model)
        return caller

    def identify(self, secret: bytes | None, now: float, client: str | None = None) -> Caller:
        """The caller, whatever they may do; `ANYBODY` where no key is asked for. Arguments as `check`'s. Raises
        `Unauthenticated`."""
        if not self.required:
            return ANYBODY
        return _current(self._recognise(secret, client), now)

    def identify_session(self, identity: str, now: float) -> Caller:
        """The caller whose secret was checked when their session began; `identity` is the key's id. Raises
        `Unauthenticated` when that key is no longer in use."""
        key, caller = self._keys.get(identity, (None, ANYBODY))
        if key is None or key.revoked is not None:
            raise Unauthenticated("The key of this session is not in use any more.", hint="Log in again.")
        return _current(caller, now)

    def check_reach(self, caller: Caller, scope: Scope, model: str | None) -> None:
        """Whether a caller that was identified may do this. Raises `Forbidden`."""
        if self.required:
            self._check_reach(caller, scope, model)
        elif scope == "admin" and not self._open_admin:
            raise _admin_is_off()

    def models_of(self, name: str) -> frozenset[str] | None:
        """The models that the key of this name may use; None for all of them, as for callers without a key."""
        caller = self._named.get(name)
        return None if caller is None else caller.models

    def _recognise(self, secret: bytes | None, client: str | None) -> Caller:
        if secret is None:
            named = None if client is None else self._named.get(client)
            if named is None:
                raise Unauthenticated("This server asks for an API key.", hint=_HOW)
            return named
        plain = _without_scheme(secret)
        key, caller = self._keys.get(secret_id(plain) or "", (None, ANYBODY))
        same = hmac.compare_digest(secret_hash(plain), _NOBODY if key is None else key.hash)
        if key is None or not same:
            raise Unauthenticated("This API key is not known here.", hint=_HOW)
        if key.revoked is not None:
            raise Unauthenticated(f"The API key {key.name!r} was revoked.", hint="Ask for a new one.")
        if len(self._memo) >= _MEMO:  # one key can be written in several ways
            self._memo.clear()
        self._memo[secret] = caller
        return caller

    def _check_reach(self, caller: Caller, scope: Scope, model: str | None) -> None:
        if scope not in caller.scopes:
            if scope == "admin" and not self._admin_exists:
                raise _admin_is_off()
            raise Forbidden(
                f"The API key {caller.name!r} has not the scope {scope!r}.", hint="Use a key that has it."
            )
        if caller.models is None or model in caller.models:
            return
        if model is None and scope != "admin":  # it sees what belongs to no model
            return
        what = "all models" if model is None else f"the model {model!r}"
        raise Forbidden(f"The API key {caller.name!r} does not reach {what}.", hint="Use a key made for it.")


def presented(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The secret as the headers carry it. `X-API-Key` comes first: proxies put their own into `Authorization`."""
    return headers.get(b"x-api-key") or headers.get(b"authorization")


def _without_scheme(value: bytes) -> bytes:
    return value[7:].strip() if value[:7].lower() == b"bearer " else value.strip()


def _current(caller: Caller, now: float) -> Caller:
    if now >= caller.expires:
        raise Unauthenticated(f"The API key {caller.name!r} has expired.", hint="Ask for a new one.")
    return caller


def _admin_is_off() -> Forbidden:
    return Forbidden(
        "The admin API is off until there is an admin key.",
        hint="Make one with: fairway keys create NAME --scope admin",
    )


def _caller(key: AccessKey) -> Caller:
    return Caller(
        name=key.name,
        id=key.id,
        scopes=frozenset(key.scopes),
        models=frozenset(key.models) or None,
        expires=math.inf if key.expires is None else datetime.fromisoformat(key.expires).timestamp(),
        rate=key.rate,
        burst=key.burst or 1,
        concurrency=key.concurrency,
        limited=key.rate is not None or key.concurrency is not None,
    )
