"""Who may do what, and what they are told."""

import hmac
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import AccessDenied, FairwayError, Forbidden, Unauthenticated
from fairway.security import access as module
from fairway.security.access import ANYBODY, Access, Caller, presented
from fairway.security.keys import SCOPES, AccessKey, Scope, new_key

START = datetime(2030, 1, 1, tzinfo=UTC)
NOW = START.timestamp()


def made(name: str = "app", scopes: tuple[str, ...] = ("infer",), **values: Any) -> tuple[AccessKey, bytes]:
    key, secret = new_key(name, scopes=scopes, now=START, **values)
    return key, secret.encode()


def revoked(key: AccessKey) -> AccessKey:
    return msgspec.structs.replace(key, revoked="2030-01-01T00:00:00.000000Z")


def refusal(access: Access, *arguments: Any, **named: Any) -> FairwayError:
    with pytest.raises(AccessDenied) as raised:
        access.check(*arguments, **named)
    return raised.value


def test_without_keys_everything_is_open_but_the_admin_api() -> None:
    access = Access()
    assert not access.required
    for scope in ("infer", "feedback", "metrics"):
        assert access.check(None, scope, "m", NOW) is ANYBODY  # type: ignore[arg-type]
        assert access.check(b"Bearer whatever", scope, None, NOW) is ANYBODY  # type: ignore[arg-type]
    with pytest.raises(Forbidden, match=r"admin API is off.*fairway keys create NAME --scope admin"):
        access.check(None, "admin", None, NOW)


def test_a_platform_that_is_the_only_caller_may_be_let_into_the_admin_api_until_there_are_keys() -> None:
    assert Access(open_admin=True).check(None, "admin", "m", NOW) is ANYBODY
    key, secret = made()
    access = Access([key], open_admin=True)
    assert isinstance(refusal(access, None, "admin", None, NOW), Unauthenticated)
    assert isinstance(refusal(access, secret, "admin", None, NOW), Forbidden)


def test_a_key_is_known_however_it_is_written() -> None:
    key, secret = made(models=("m",), rate=5, concurrency=2)
    access = Access([key])
    for raw in (secret, b"Bearer " + secret, b"bearer  " + secret, b"BEARER " + secret + b" "):
        for _ in range(2):
            caller = access.check(raw, "infer", "m", NOW)
            assert (caller.name, caller.id, caller.limited) == ("app", key.id, True)
            assert (caller.rate, caller.burst, caller.concurrency) == (5, 5, 2)


def test_who_is_not_known_is_told_how_to_say_who_they_are() -> None:
    key, secret = made()
    access = Access([key])
    assert "Authorization: Bearer" in str(refusal(access, None, "infer", "m", NOW))
    other = made()[1]
    forged = secret[:-1] + (b"A" if secret[-1:] != b"A" else b"B")
    told = {
        str(refusal(access, raw, "infer", "m", NOW)) for raw in (b"", b"Basic YTpi", other, forged, b"\xff")
    }
    assert told == {
        "This API key is not known here. Send it as 'Authorization: Bearer fw_...' or as 'X-API-Key: fw_...'."
    }


def test_the_secret_is_compared_in_constant_time_also_when_there_is_no_such_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[str, str]] = []
    real = hmac.compare_digest

    def compare(a: str, b: str) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    key, secret = made()
    access = Access([key])
    access.check(secret, "infer", None, NOW)
    for raw in (made()[1], b"nonsense", secret[:-1] + b"-"):
        refusal(access, raw, "infer", None, NOW)
    assert [len(a) == len(b) == 64 for a, b in compared] == [True] * 4


def test_a_revoked_key_is_refused_and_a_registry_that_had_one_stays_closed() -> None:
    key, secret = made()
    access = Access([revoked(key)])
    assert access.required
    assert "was revoked" in str(refusal(access, secret, "infer", "m", NOW))
    assert isinstance(refusal(access, None, "infer", "m", NOW), Unauthenticated)


def test_expiry_is_looked_at_on_every_call() -> None:
    key, secret = made(expires=START + timedelta(seconds=10))
    access = Access([key])
    for moment, known in ((0, True), (9.99, True), (10, False), (11, False), (5, True)):
        if known:
            assert access.check(secret, "infer", "m", NOW + moment).name == "app"
        else:
            assert "has expired" in str(refusal(access, secret, "infer", "m", NOW + moment))


def test_a_key_reaches_its_scopes_only() -> None:
    for scope in SCOPES:
        key, secret = made(scopes=(scope,))
        access = Access([key, made("root", ("admin",))[0]])
        for asked in SCOPES:
            if asked == scope:
                access.check(secret, asked, "m", NOW)
            else:
                assert f"'app' has not the scope '{asked}'" in str(refusal(access, secret, asked, "m", NOW))


def test_a_key_reaches_its_models_only() -> None:
    key, secret = made(scopes=SCOPES, models=("a", "b"))
    access = Access([key])
    for scope in SCOPES:
        for model in ("a", "b"):
            access.check(secret, scope, model, NOW)
        assert "does not reach the model 'c'" in str(refusal(access, secret, scope, "c", NOW))
    access.check(secret, "metrics", None, NOW)
    assert "does not reach all models" in str(refusal(access, secret, "admin", None, NOW))


def test_the_admin_api_is_off_until_somebody_has_an_admin_key() -> None:
    key, secret = made()
    root, root_secret = made("root", ("admin",))
    said = "admin API is off"
    assert said in str(refusal(Access([key]), secret, "admin", None, NOW))
    assert said in str(refusal(Access([key, revoked(root)]), secret, "admin", None, NOW))
    assert said not in str(refusal(Access([key, root]), secret, "admin", None, NOW))
    Access([key, root]).check(root_secret, "admin", None, NOW)


def test_refusals_say_nothing_about_other_keys() -> None:
    key, secret = made(models=("a",), expires=START + timedelta(seconds=1))
    others = [made(f"other-{i}", SCOPES, models=("hidden",))[0] for i in range(3)]
    access = Access([key, *others, revoked(made("gone")[0])])
    for raw in (None, b"x", secret, made()[1]):
        for scope in SCOPES:
            for model, moment in (("elsewhere", NOW), (None, NOW + 5)):
                try:
                    access.check(raw, scope, model, moment)
                except AccessDenied as error:
                    told = str(error)
                    assert not any(word in told for word in ("other-", "hidden", "gone", secret.decode()))
                    assert not any(other.id in told or other.hash in told for other in others)


def test_a_new_snapshot_remembers_nothing() -> None:
    key, secret = made()
    before = Access([key])
    assert before.check(secret, "infer", "m", NOW).name == "app"
    refusal(Access([revoked(key)]), secret, "infer", "m", NOW)
    assert Access([]).check(secret, "infer", "m", NOW) is ANYBODY


def test_what_is_remembered_is_bounded_and_holds_no_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEMO", 4)
    key, secret = made()
    access = Access([key])
    for number in range(20):
        access.check(b"Bearer " + b" " * number + secret, "infer", "m", NOW)
        refusal(access, b"stranger %d" % number, "infer", "m", NOW)
    assert 0 < len(access._memo) <= 4
    assert all(secret in raw for raw in access._memo)


def test_a_client_certificate_stands_for_the_key_of_its_name() -> None:
    key, _ = made("billing", expires=START + timedelta(seconds=10))
    other, other_secret = made("other", ("metrics",))
    access = Access([revoked(made("old")[0]), key, other])
    assert access.check(None, "infer", "m", NOW, "billing").id == key.id
    assert "has expired" in str(refusal(access, None, "infer", "m", NOW + 10, "billing"))
    for name in ("old", "nobody", "", None):
        assert "asks for an API key" in str(refusal(access, None, "infer", "m", NOW, name))
    assert access.check(other_secret, "metrics", None, NOW, "billing").id == other.id  # the secret counts
    refusal(access, b"wrong", "infer", "m", NOW, "billing")


def test_which_header_counts() -> None:
    assert presented({}) is None
    assert presented({b"authorization": b"Bearer a"}) == b"Bearer a"
    assert presented({b"authorization": b"Basic proxy", b"x-api-key": b"fw_a"}) == b"fw_a"


keys = st.builds(
    lambda scopes, models, ttl, gone: (scopes, models, ttl, gone),
    st.sets(st.sampled_from(SCOPES), min_size=1),
    st.sets(st.sampled_from("ab")),
    st.none() | st.integers(1, 10),
    st.booleans(),
)


@given(st.lists(keys, min_size=1, max_size=4), st.lists(st.tuples(st.integers(0, 4), st.sampled_from(SCOPES), st.sampled_from(["a", "b", "c", None]), st.integers(0, 12)), max_size=30))  # fmt: skip
def test_what_was_asked_before_changes_no_answer(
    kinds: list[tuple[set[Scope], set[str], int | None, bool]],
    asked: list[tuple[int, Scope, str | None, int]],
) -> None:
    """The memo is an optimisation: every answer is what the key says, in any order of questions."""
    listed = []
    for number, (scopes, models, ttl, gone) in enumerate(kinds):
        expires = None if ttl is None else START + timedelta(seconds=ttl)
        key, secret = made(f"k{number}", tuple(scopes), models=tuple(models), expires=expires)
        listed.append((revoked(key) if gone else key, secret, (scopes, models, ttl or math.inf, gone)))
    access = Access([key for key, _, _ in listed])
    for number, scope, model, moment in asked:
        key, secret, (scopes, models, ttl, gone) = listed[number % len(listed)]
        reach = not models or model in models or (model is None and scope != "admin")
        try:
            caller: Caller | None = access.check(secret, scope, model, NOW + moment)
        except AccessDenied:
            caller = None
        assert (caller is not None) == (not gone and moment < ttl and scope in scopes and reach)
        assert caller is None or caller.id == key.id
