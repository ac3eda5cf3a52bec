"""Signed webhooks, as the Standard Webhooks specification has them: HMAC-SHA256 over id, time and body.

A receiver that is written in Python may call `verify`; there are libraries for every other language.
Source: github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping

from fairway.core.errors import SettingsError, Unauthenticated

PREFIX = "whsec_"
TOLERANCE_SECONDS = 300.0
_LEAST_BYTES, _MOST_BYTES = 24, 64


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def keys_of(text: str) -> tuple[bytes, ...]:
    """The keys in a setting: one, or several separated by spaces while they are exchanged. SettingsError, which does not
    show them."""
    keys = []
    for part in text.split():
        encoded = part.removeprefix(PREFIX)
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not part.startswith(PREFIX) or not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
            raise SettingsError(
                f"A webhook's secret is not {PREFIX} and the base64 of {_LEAST_BYTES} to {_MOST_BYTES} bytes.",
                hint="Make one with: fairway alerts secret",
            )
        keys.append(key)
    if not keys:
        raise SettingsError("A webhook's secret is empty.", hint="Make one with: fairway alerts secret")
    return tuple(keys)


def sign(secret: str, *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message; signed with every key of `secret`."""
    signatures = " ".join(
        f"v1,{_signature(key, message_id, str(timestamp), body)}" for key in keys_of(secret)
    )
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signatures,
    }


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float | None = None,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> str:
    """The message's id when one of its signatures fits and it was sent within `tolerance_seconds` of `now`; else
    Unauthenticated.

    `body` is the bytes as received. A message comes more than once when an answer was lost: remember the ids of the last
    `tolerance_seconds`, and drop what you had before.
    """
    known = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, sent = known["webhook-id"], known["webhook-timestamp"]
        signatures = known["webhook-signature"]
    except KeyError as error:
        raise Unauthenticated(f"The header {error.args[0]} is missing.") from None
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 12):
        raise Unauthenticated("webhook-timestamp is not a number of seconds.")
    if abs((time.time() if now is None else now) - int(sent)) > tolerance_seconds:
        raise Unauthenticated(f"The message was not sent within {tolerance_seconds:g} s of now.")
    expected = [_signature(key, message_id, sent, body).encode() for key in keys_of(secret)]
    is_good = False
    for signature in signatures.split(" ")[:20]:
        version, _, text = signature.partition(",")
        for own in expected:  # every one, so that the time taken tells nothing
            is_good |= version == "v1" and hmac.compare_digest(own, text.encode("utf-8", "replace"))
    if not is_good:
        raise Unauthenticated("No signature of the message fits.")
    return message_id


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = b".".join((message_id.encode("utf-8", "replace"), timestamp.encode(), body))
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
