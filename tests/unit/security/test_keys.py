"""Keys as values: what is kept, what is shown once, what cannot be."""

import hashlib
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fairway.core.errors import InvalidInput
from fairway.security.keys import SCOPES, AccessKey, expiry, new_key, secret_hash, secret_id

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_a_secret_names_its_key_and_only_its_hash_is_kept() -> None:
    key, secret = new_key("app", scopes=("infer",), now=NOW, who="ann")
    prefix, identity, random = secret.split("_", 2)
    assert (prefix, identity, len(random)) == ("fw", key.id, 43)
    assert secret_id(secret.encode()) == key.id
    assert key.hash == secret_hash(secret.encode()) == hashlib.sha256(secret.encode()).hexdigest()
    assert random not in msgspec.json.encode(key).decode()
    assert (key.created, key.created_by, key.revoked) == ("2030-01-01T12:00:00.000000Z", "ann", None)
    assert msgspec.json.decode(msgspec.json.encode(key), type=AccessKey) == key


def test_secrets_never_repeat() -> None:
    made = [new_key("app", scopes=("infer",), now=NOW) for _ in range(50)]
    assert len({secret for _, secret in made}) == len({key.id for key, _ in made}) == 50


@pytest.mark.parametrize(
    "text",
    ["", "fw_", "fw_0123456789ab_", "fw_0123456789ab_" + "x" * 42, "fw_0123456789ab_" + "x" * 44,
     "fw_0123456789AB_" + "x" * 43, "fw_0123456789ab_" + "x" * 42 + "!", "fw_0123456789ab_" + "x" * 43 + "\n",
     "xx_0123456789ab_" + "x" * 43, " fw_0123456789ab_" + "x" * 43],
)  # fmt: skip
def test_other_text_is_no_secret(text: str) -> None:
    assert secret_id(text.encode()) is None


def test_scopes_and_models_are_kept_once_and_in_order() -> None:
    key, _ = new_key("app", scopes=("admin", "infer", "admin"), models=("b", "a", "b"), now=NOW)
    assert key.scopes == ("infer", "admin")
    assert key.models == ("b", "a")


def test_a_burst_is_what_the_rate_allows_in_a_second_unless_told() -> None:
    def burst(**limits: float) -> int | None:
        return new_key("app", scopes=("infer",), now=NOW, **limits)[0].burst  # type: ignore[arg-type]

    assert [burst(), burst(rate=0.1), burst(rate=2.5), burst(rate=10, burst=1)] == [None, 1, 3, 1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "a b"}, "'a b' is not a name for a key"),
        ({"name": ""}, "not a name"),
        ({"name": "1a"}, "not a name"),
        ({"name": "a" * 65}, "not a name"),
        ({"scopes": ()}, "at least one scope.*infer, feedback, metrics, admin"),
        ({"scopes": ("infer", "all")}, "'all' is not a scope"),
        ({"models": ("a/b",)}, "'a/b' is not a model name"),
        ({"expires": NOW}, "expired at 2030-01-01"),
        ({"rate": 0.0}, "rate of 0"),
        ({"rate": float("nan")}, "rate of nan"),
        ({"rate": float("inf")}, "rate of inf"),
        ({"rate": -1.0}, "rate of -1"),
        ({"burst": 5}, "burst without a rate"),
        ({"rate": 1.0, "burst": 0}, "burst of 0"),
        ({"concurrency": 0}, "concurrency of 0"),
    ],
)
def test_what_cannot_be_is_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        new_key(**{"name": "app", "scopes": SCOPES, "now": NOW, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("30m", NOW + timedelta(minutes=30)),
        (" 5 s ", NOW + timedelta(seconds=5)),
        ("2w", NOW + timedelta(days=14)),
        ("1y", NOW + timedelta(days=365)),
        ("2030-06-01", datetime(2030, 6, 1, tzinfo=UTC)),
        ("2030-06-01T10:00:00+02:00", datetime(2030, 6, 1, 8, tzinfo=UTC)),
    ],
)
def test_when_a_key_ends(text: str, moment: datetime) -> None:
    assert expiry(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "soon", "90", "-1d", "d", "1.5d", "2030-13-01", "999999y", "1 month"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a time"):
        expiry(text, NOW)
