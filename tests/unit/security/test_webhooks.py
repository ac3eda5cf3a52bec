"""Signatures against the published example and the specification's own library."""

import json
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from fairway.core.errors import SettingsError, Unauthenticated
from fairway.security.webhooks import new_secret, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, SENT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
PUBLISHED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
"""The example that the specification's libraries are tested with."""


def test_the_published_example() -> None:
    headers = sign(SECRET, message_id=ID, timestamp=SENT, body=BODY)
    assert headers == {"webhook-id": ID, "webhook-timestamp": str(SENT), "webhook-signature": PUBLISHED}
    assert verify(SECRET, headers, BODY, now=SENT) == ID


def test_the_published_library_reads_ours_and_we_read_its() -> None:
    secret, now = new_secret(), int(time.time())
    body = json.dumps({"type": "incident.opened", "text": "ünïcode"}).encode()
    theirs = Webhook(secret)
    assert theirs.verify(body, sign(secret, message_id="m1", timestamp=now, body=body)) == json.loads(body)
    signature = theirs.sign("m1", datetime.fromtimestamp(now, UTC), body.decode())
    headers = {"Webhook-Id": "m1", "Webhook-Timestamp": str(now), "Webhook-Signature": signature}
    assert verify(secret, headers, body) == "m1"
    with pytest.raises(WebhookVerificationError):
        theirs.verify(body + b" ", sign(secret, message_id="m1", timestamp=now, body=body))


def test_both_secrets_fit_while_they_are_exchanged() -> None:
    new, old = new_secret(), new_secret()
    headers = sign(f"{new} {old}", message_id="m", timestamp=SENT, body=BODY)
    for secret in (new, old, f"{old} {new_secret()}"):
        assert verify(secret, headers, BODY, now=SENT) == "m"
    with pytest.raises(Unauthenticated):
        verify(new_secret(), headers, BODY, now=SENT)


GOOD = sign(SECRET, message_id=ID, timestamp=SENT, body=BODY)


@pytest.mark.parametrize(
    ("changed", "body", "now", "says"),
    [
        ({}, BODY + b" ", SENT, "No signature"),
        ({"webhook-id": "msg_other"}, BODY, SENT, "No signature"),
        ({"webhook-timestamp": str(SENT + 1)}, BODY, SENT, "No signature"),
        ({"webhook-signature": ""}, BODY, SENT, "No signature"),
        ({"webhook-signature": "v1,"}, BODY, SENT, "No signature"),
        ({"webhook-signature": PUBLISHED.replace("v1,", "v2,")}, BODY, SENT, "No signature"),
        ({"webhook-signature": "v1,ünïcode v1"}, BODY, SENT, "No signature"),
        ({"webhook-signature": "v1,x " * 10_000 + PUBLISHED}, BODY, SENT, "No signature"),
        ({"webhook-timestamp": "soon"}, BODY, SENT, "not a number"),
        ({"webhook-timestamp": "-1"}, BODY, SENT, "not a number"),
        ({"webhook-timestamp": "٣"}, BODY, SENT, "not a number"),
        ({"webhook-timestamp": "9" * 400}, BODY, SENT, "not a number"),
        ({}, BODY, SENT + 301, "within 300 s"),
        ({}, BODY, SENT - 301, "within 300 s"),
    ],
)
def test_what_is_not_ours_is_refused(changed: dict[str, str], body: bytes, now: float, says: str) -> None:
    with pytest.raises(Unauthenticated, match=says):
        verify(SECRET, {**GOOD, **changed}, body, now=now)


@pytest.mark.parametrize("missing", list(GOOD))
def test_a_header_that_is_missing_is_named(missing: str) -> None:
    with pytest.raises(Unauthenticated, match=missing):
        verify(SECRET, {name: value for name, value in GOOD.items() if name != missing}, BODY, now=SENT)


@pytest.mark.parametrize("secret", ["", "  ", "s3cret", "whsec_", "whsec_c2hvcnQ=", "whsec_%%%", SECRET[6:]])
def test_a_secret_that_is_none_is_not_shown(secret: str) -> None:
    with pytest.raises(SettingsError) as error:
        sign(secret, message_id="m", timestamp=1, body=b"")
    assert secret.strip() not in str(error.value) or len(secret.strip()) <= 6


def test_secrets_are_long_and_each_is_another() -> None:
    secrets = {new_secret() for _ in range(10)}
    assert len(secrets) == 10
    assert all(len(secret) == 50 for secret in secrets)
