"""Who answers: every rule in a table, laws over all cases, and what a worker holds against stores that fail."""

import logging
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.errors import AnswerNotFound, AnswersUnavailable, InvalidInput, Overloaded, SettingsError
from fairway.core.settings import HybridSettings, ModelSettings, Settings
from fairway.inference.entries import encode_rows, features_of, layout_of
from fairway.inference.freshness import (
    Known,
    Policy,
    Reason,
    Source,
    Verdict,
    contract_signature,
    decide,
    default_row,
    together,
)
from fairway.inference.precomputed import AGES, Precomputed, check_default, open_precomputed, policy_of
from fairway.stores.answers import AnswerStore, Generation, Stored, open_answers
from fairway.stores.counters import Counters
from tests.generations import generation

MINE, OTHER = b"m" * 16, b"o" * 16
FRESH = Known("sha256:1", "s", 100.0, 60.0, MINE)
STORE, STALE, LIVE, NOBODY, DEFAULT = (
    Source.precomputed,
    Source.stale,
    Source.live,
    Source.nobody,
    Source.default,
)


def known(**changes: Any) -> Known:
    fields = {name: getattr(FRESH, name) for name in Known.__struct_fields__}
    return Known(**{**fields, **changes})


def ask(one: Known | None, *, now: float = 130.0, features: bytes | None = None, **options: Any) -> Verdict:
    policy = Policy(**{k: options.pop(k) for k in tuple(options) if k in Policy.__struct_fields__})
    return decide(one, now=now, digest="sha256:1", signature="s", features=features, policy=policy, **options)


@pytest.mark.parametrize(
    ("one", "options", "source", "reason"),
    [
        # fresh
        (FRESH, {}, STORE, "fresh"),
        (FRESH, {"features": MINE}, STORE, "fresh"),
        (FRESH, {"now": 159.9}, STORE, "fresh"),
        (FRESH, {"now": 50.0}, STORE, "fresh"),  # a clock that runs behind the writer's
        (known(ttl_seconds=0.0), {"now": 1e12}, STORE, "fresh"),
        (FRESH, {"overloaded": True}, STORE, "fresh"),
        (FRESH, {"prefer": "live"}, STORE, "fresh"),
        (FRESH, {"prefer": "live", "features": MINE}, LIVE, "preferred"),
        (FRESH, {"prefer": "live", "features": MINE, "overloaded": True}, NOBODY, "fresh"),
        (
            FRESH,
            {"prefer": "live", "features": MINE, "overloaded": True, "overload": "fresh"},
            STORE,
            "fresh",
        ),
        (
            FRESH,
            {"prefer": "live", "features": MINE, "overloaded": True, "overload": "default"},
            STORE,
            "fresh",
        ),
        # not fresh, and the features are there
        (None, {"features": MINE}, LIVE, "missing"),
        (None, {"features": MINE, "away": True}, LIVE, "away"),
        (FRESH, {"features": MINE, "now": 160.0}, LIVE, "expired"),
        (FRESH, {"features": OTHER}, LIVE, "features"),
        (known(digest="sha256:2"), {"features": MINE}, LIVE, "digest"),
        (known(signature="t"), {"features": MINE}, LIVE, "contract"),
        # not fresh, and they are not
        (None, {}, NOBODY, "missing"),
        (None, {"missing": "stale"}, NOBODY, "missing"),
        (None, {"missing": "default"}, DEFAULT, "missing"),
        (None, {"missing": "default", "away": True}, DEFAULT, "away"),
        (FRESH, {"now": 160.0}, NOBODY, "expired"),
        (FRESH, {"now": 160.0, "missing": "stale"}, STALE, "expired"),
        (FRESH, {"now": 160.0, "missing": "default"}, STALE, "expired"),
        (FRESH, {"now": 160.0, "missing": "stale", "stale_seconds": 59.0}, NOBODY, "expired"),
        (FRESH, {"now": 160.0, "missing": "default", "stale_seconds": 59.0}, DEFAULT, "expired"),
        (known(digest="sha256:2"), {"missing": "stale"}, STALE, "digest"),
        (known(signature="t"), {"missing": "stale"}, NOBODY, "contract"),
        (known(signature="t"), {"missing": "default"}, DEFAULT, "contract"),
        (FRESH, {"now": 160.0, "overload": "default"}, NOBODY, "expired"),
        # overloaded, with features
        (None, {"features": MINE, "overloaded": True}, NOBODY, "missing"),
        (None, {"features": MINE, "overloaded": True, "missing": "default"}, NOBODY, "missing"),
        (None, {"features": MINE, "overloaded": True, "overload": "default"}, DEFAULT, "missing"),
        (FRESH, {"features": OTHER, "overloaded": True, "overload": "fresh"}, NOBODY, "features"),
        (FRESH, {"features": OTHER, "overloaded": True, "overload": "stale"}, STALE, "features"),
        (
            known(signature="t"),
            {"features": MINE, "overloaded": True, "overload": "stale"},
            NOBODY,
            "contract",
        ),
        (
            FRESH,
            {"now": 160.0, "features": MINE, "overloaded": True, "overload": "default"},
            STALE,
            "expired",
        ),
    ],
)
def test_the_rules(one: Known | None, options: dict[str, Any], source: Source, reason: str) -> None:
    verdict = ask(one, **options)
    assert (verdict.source, verdict.reason) == (source, Reason(reason))


KNOWN = st.none() | st.builds(
    Known,
    digest=st.sampled_from(["sha256:1", "sha256:2"]),
    signature=st.sampled_from(["s", "t"]),
    computed=st.floats(0, 1000),
    ttl_seconds=st.sampled_from([0.0, 60.0]),
    features=st.sampled_from([MINE, OTHER]),
)
POLICY = st.fixed_dictionaries(
    {
        "prefer": st.sampled_from(["store", "live"]),
        "missing": st.sampled_from(["refuse", "stale", "default"]),
        "overload": st.sampled_from(["refuse", "fresh", "stale", "default"]),
        "stale_seconds": st.sampled_from([0.0, 90.0, 1e9]),
    }
)


@given(KNOWN, POLICY, st.floats(0, 2000), st.none() | st.sampled_from([MINE, OTHER]), st.booleans())
def test_laws(
    one: Known | None, policy: dict[str, Any], now: float, features: bytes | None, overloaded: bool
) -> None:
    verdict = ask(one, now=now, features=features, overloaded=overloaded, **policy)
    source = verdict.source
    if source is LIVE:
        assert features is not None
        assert not overloaded
    if features is not None and not overloaded:
        assert source in (STORE, LIVE)
    if source in (STORE, STALE):
        assert one is not None
        assert one.signature == "s"
        assert verdict.age == max(0.0, now - one.computed)
    if source is STORE:
        assert one is not None
        assert one.digest == "sha256:1"
        assert features in (None, one.features)
        assert not one.ttl_seconds or now - one.computed < one.ttl_seconds
    if source is STALE:
        assert verdict.age <= policy["stale_seconds"]
        assert "refuse" not in (policy["missing"] if features is None else policy["overload"])
    if source is DEFAULT:
        assert "default" in (policy["missing"], policy["overload"])
    assert (verdict.reason is Reason.fresh) >= (source is STORE)


def test_rows_are_answered_as_the_worst_of_them() -> None:
    order = [STORE, STALE, DEFAULT, LIVE, NOBODY]
    for i, better in enumerate(order):
        for worse in order[i:]:
            one, two = Verdict(better, Reason.fresh, 5.0), Verdict(worse, Reason.expired, 9.0)
            assert together([one, two]).source is worse
            assert together([two, one]).source is worse
    old = together([Verdict(STORE, Reason.fresh, 9.0), Verdict(STORE, Reason.fresh, 5.0)])
    assert old == Verdict(STORE, Reason.fresh, 9.0)
    assert together([Verdict(LIVE, Reason.missing, 0.0), Verdict(STORE, Reason.fresh, 5.0)]).age == 0.0


CONTRACT = Contract(
    inputs=(Field(name="a", dtype=DType.float64), Field(name="b", dtype=DType.float64)),
    outputs=(Output(name="label", dtype=DType.string), Output(name="p", dtype=DType.float32, shape=(2,))),
)


class Version:
    def __init__(self, digest: str = "sha256:1", contract: Contract = CONTRACT) -> None:
        self.digest = digest
        self.contract = contract


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Failing:
    """A store that can be away or damaged."""

    where, may_block = "failing", False

    def __init__(self, store: AnswerStore) -> None:
        self._store = store
        self.away = False
        self.damaged = False
        self.asked = 0

    def get(self, key: bytes) -> Stored | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        self.asked += 1
        if self.away:
            raise AnswersUnavailable("away")
        found = self._store.get_many(keys)
        if self.damaged:
            return [None if one is None else Stored(one.generation, one.entry[:30]) for one in found]
        return found

    def close(self) -> None:
        self._store.close()


class Held:
    """What a worker holds, with rows 0, 1, 2 computed at 900 s for a day."""

    def __init__(self, default: dict[str, Any] | None = None, **policy: Any) -> None:
        url = f"memory://{uuid.uuid4().hex}"
        self.store = open_answers(url, "m", home=Path(), timeout_seconds=1.0)
        self.failing = Failing(self.store)
        self.counters = Counters()
        self.clock = Clock()
        self.write()
        self.held = Precomputed(
            "m",
            self.failing,  # type: ignore[arg-type]
            Policy(**policy),
            self.counters,
            key_name="customer_id",
            default=default,
            clock=self.clock,
            monotonic=self.clock,
        )

    def write(self, **changes: Any) -> None:
        answers = answers_of([0, 1, 2])
        values = {
            "layout": layout_of(answers),
            "signature": contract_signature(CONTRACT),
            "ttl_seconds": 86_400.0,
        }
        made: Generation = generation(**{**values, **changes})
        entries = encode_rows(answers, features_of(rows(0, 1, 2)), 900.0, made.layout)
        writer = self.store.begin(made)
        writer.write([(b"%d" % i, entry) for i, entry in enumerate(entries)], b"")
        writer.publish()

    def counted(self) -> dict[str, float]:
        return {
            name.removeprefix("fairway_answers_") + "".join(f" {v}" for k, v in labels if k != "model"): value
            for (name, labels), value in self.counters.totals().items()
            if value and name.startswith("fairway_answers")
        }


def rows(*numbers: float) -> Columns:
    return Columns(("a", "b"), len(numbers), packed=np.array([[n, n + 1.0] for n in numbers]))


def answers_of(numbers: Sequence[float]) -> Outputs:
    labels = np.empty(len(numbers), dtype=object)
    labels[:] = [f"label {n:g}" for n in numbers]
    return {"label": labels, "p": np.array([[n, -n] for n in numbers], np.float32)}


def same(found: Outputs | None, expected: Outputs) -> bool:
    return found is not None and all(
        found[name].dtype == values.dtype and np.array_equal(found[name], values)
        for name, values in expected.items()
    )


def test_a_key_is_answered_from_the_store() -> None:
    held = Held()
    found = held.held.find([b"1"], Version(), None)
    assert (found.source, found.reason, found.age) == (STORE, Reason.fresh, 100.0)
    assert same(found.outputs, answers_of([1]))
    held.held.answered(found)
    assert held.counted() == {
        "total precomputed": 1.0,
        "age_seconds_bucket 300": 1.0,
        "age_seconds_sum": 100.0,
        "store_up": 1.0,
    }


def test_several_keys_are_answered_in_order() -> None:
    found = Held().held.find([b"2", b"0", b"2"], Version(), rows(2, 0, 2))
    assert found.source is STORE
    assert same(found.outputs, answers_of([2, 0, 2]))


def test_other_features_make_the_model_answer() -> None:
    held = Held().held
    assert held.find([b"1"], Version(), rows(1)).source is STORE
    found = held.find([b"1"], Version(), rows(1.5))
    assert (found.source, found.reason, found.outputs) == (LIVE, Reason.features, None)
    assert held.find([b"1", b"2"], Version(), rows(1, 2.5)).source is LIVE
    assert held.find([b"none"], Version(), rows(1)).reason is Reason.missing


def test_a_new_version_and_a_new_contract_end_an_answer() -> None:
    held = Held(missing="stale")
    assert held.held.find([b"1"], Version("sha256:2"), rows(1)).reason is Reason.digest
    assert held.held.find([b"1"], Version("sha256:2"), None).source is STALE
    other = Contract(inputs=CONTRACT.inputs, outputs=CONTRACT.outputs[1:])
    assert held.held.find([b"1"], Version("sha256:3", other), rows(1)).reason is Reason.contract
    with pytest.raises(AnswerNotFound, match="another contract"):
        held.held.find([b"1"], Version("sha256:3", other), None)
    assert held.held.find([b"1"], Version(), None).source is STORE


def test_a_key_nobody_knows_is_a_clear_404() -> None:
    held = Held()
    with pytest.raises(
        AnswerNotFound, match=r"no answer for customer_id 'nine' \(and 1 more\): nothing was"
    ) as caught:
        held.held.find([b"1", b"nine", b"ten"], Version(), None)
    assert "Send the features" in str(caught.value)
    held.clock.now += 90_000
    with pytest.raises(AnswerNotFound, match="expired"):
        held.held.find([b"1"], Version(), None)
    assert held.counted()["total nobody"] == 2.0
    assert held.counted()["missed_total expired"] == 1.0


def test_every_row_has_a_key() -> None:
    held = Held().held
    for keys, columns in (([b"1"], rows(1, 2)), ([b"1", b"2"], rows(1)), ([], None)):
        with pytest.raises(InvalidInput, match="customer_id"):
            held.find(keys, Version(), columns)


def test_stale_and_default_answers() -> None:
    held = Held(missing="default", stale_seconds=200_000, default={"label": "unknown", "p": [0.5, 0.5]})
    found = held.held.find([b"1", b"nine"], Version(), None)
    assert (found.source, found.reason) == (DEFAULT, Reason.missing)
    assert found.outputs is not None
    assert found.outputs["label"].tolist() == ["label 1", "unknown"]
    assert found.outputs["p"].tolist() == [[1, -1], [0.5, 0.5]]
    assert found.outputs["p"].dtype == np.float32
    held.clock.now += 90_000
    assert held.held.find([b"1"], Version(), None).source is STALE
    held.clock.now += 190_000
    assert held.held.find([b"1"], Version(), None).source is DEFAULT


def test_under_overload_the_store_stands_in_and_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    held = Held(overload="stale")
    assert held.held.find([b"1"], Version(), rows(7)).source is LIVE
    with caplog.at_level(logging.ERROR, "fairway.answers"):
        for _ in range(3):
            found = held.held.find([b"1"], Version(), rows(7), overloaded=True)
            assert (found.source, found.reason) == (STALE, Reason.features)
            held.held.answered(found)
    assert held.counted()["overload_total"] == 3.0
    assert [record.getMessage() for record in caplog.records] == [
        "m is overloaded: requests are answered from the store"
    ]
    with pytest.raises(Overloaded, match="no precomputed answer may stand in"):
        held.held.find([b"nine"], Version(), rows(7), overloaded=True)
    assert held.held.find([b"1"], Version(), rows(7)).source is LIVE


def test_a_store_that_is_away_is_left_alone_for_a_while_and_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = Held()
    held.failing.away = True
    with caplog.at_level(logging.WARNING, "fairway.answers"):
        for _ in range(5):
            assert held.held.find([b"1"], Version(), rows(1)).reason is Reason.away
        with pytest.raises(AnswersUnavailable, match="has no features"):
            held.held.find([b"1"], Version(), None)
        assert held.failing.asked == 1
        assert "store_up" not in held.counted()
        held.clock.now += 1.0
        assert held.held.find([b"1"], Version(), rows(1)).source is LIVE
        assert held.failing.asked == 2
        held.failing.away = False
        assert held.held.find([b"1"], Version(), rows(1)).source is LIVE
        held.clock.now += 1.0
        assert held.held.find([b"1"], Version(), rows(1)).source is STORE
    assert held.counted()["store_up"] == 1.0
    assert len(caplog.records) == 2


def test_damaged_entries_are_as_good_as_none() -> None:
    held = Held(missing="default", default={"label": None, "p": [0, 0]})
    held.failing.damaged = True
    assert held.held.find([b"1", b"2"], Version(), rows(1, 2)).source is LIVE
    held.clock.now += 1.0
    assert held.held.find([b"1"], Version(), None).source is DEFAULT
    held.failing.damaged = False
    held.clock.now += 1.0
    assert held.held.find([b"1"], Version(), rows(1)).source is STORE


def test_a_new_generation_is_seen_at_once() -> None:
    held = Held()
    held.write(digest="sha256:2")
    assert held.held.find([b"1"], Version(), rows(1)).reason is Reason.digest
    assert held.held.find([b"1"], Version("sha256:2"), rows(1)).source is STORE


def test_ages_are_counted_in_every_bucket() -> None:
    held = Held(stale_seconds=1e9, missing="stale")
    for age in [*AGES, AGES[-1] + 1]:
        held.clock.now = 900.0 + age
        held.held.answered(held.held.find([b"1"], Version(), None))
    buckets = [value for name, value in held.counted().items() if "bucket" in name]
    assert buckets == [1.0] * (len(AGES) + 1)


def test_the_signature_is_what_answers_mean() -> None:
    names = [
        CONTRACT,
        Contract(inputs=CONTRACT.inputs[:1], outputs=CONTRACT.outputs),
        Contract(inputs=CONTRACT.inputs, outputs=CONTRACT.outputs[::-1]),
        Contract(
            inputs=CONTRACT.inputs,
            outputs=(
                CONTRACT.outputs[0],
                Output(name="p", dtype=DType.float32, shape=(2,), labels=("a", "b")),
            ),
        ),
    ]
    assert len({contract_signature(contract) for contract in names}) == len(names)
    loose = Contract(inputs=CONTRACT.inputs, outputs=CONTRACT.outputs, extra_fields="reject")
    assert contract_signature(loose) == contract_signature(CONTRACT)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": "x"}, "p is missing"),
        ({"label": "x", "p": [1, 2], "q": 1}, "q is no output"),
        ({"label": 1, "p": [1, 2]}, "label: expected text"),
        ({"label": "x", "p": [1, 2, 3]}, "p: expected the shape"),
        ({"label": "x", "p": "much"}, "p: 'much' is not a number"),
    ],
)
def test_a_default_that_does_not_fit_is_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        default_row(CONTRACT.outputs, values)


@pytest.mark.parametrize(
    ("dtype", "value", "wrong"),
    [
        (DType.int8, 5, 300),
        (DType.int64, -1, 1.5),
        (DType.bool, True, 1),
        (DType.timestamp, "2024-01-31", "soon"),
    ],
)
def test_defaults_of_every_kind(dtype: DType, value: Any, wrong: Any) -> None:
    output = Output(name="o", dtype=dtype)
    (made,) = default_row([output], {"o": value}).values()
    assert made.shape == (1,)
    assert made[0] == (np.datetime64(value) if dtype is DType.timestamp else value)
    with pytest.raises(SettingsError):
        default_row([output], {"o": wrong})


def test_settings_say_whether_a_model_has_answers(tmp_path: Path) -> None:
    own = ModelSettings(hybrid_key="customer_id", hybrid_missing="stale", hybrid_stale_seconds=5.0)
    settings = Settings(home=str(tmp_path), models={"m": own, "n": ModelSettings()})
    assert open_precomputed(settings, "n", Counters()) is None
    assert open_precomputed(settings, "other", Counters()) is None
    held = open_precomputed(settings, "m", Counters())
    assert held is not None
    assert (held.key_name, held.may_block) == ("customer_id", False)
    assert held.policy == Policy(missing="stale", stale_seconds=5.0)
    with pytest.raises(AnswerNotFound):
        held.find([b"1"], Version(), None)
    held.close()
    assert not list(tmp_path.iterdir())
    remote = Settings(
        home=str(tmp_path), models={"m": own}, hybrid=HybridSettings(store="redis://127.0.0.1:1")
    )
    away = open_precomputed(remote, "m", Counters())
    assert away is not None
    assert away.may_block
    with pytest.raises(AnswersUnavailable):
        away.find([b"1"], Version(), None)
    assert away.find([b"1"], Version(), rows(1)).source is LIVE
    away.close()


def test_a_default_is_needed_where_one_is_given() -> None:
    for own in (ModelSettings(hybrid_missing="default"), ModelSettings(hybrid_overload="default")):
        with pytest.raises(SettingsError, match="hybrid_default"):
            policy_of("m", own)
    own = ModelSettings(hybrid_key="customer_id", hybrid_default={"label": "x"})
    with pytest.raises(SettingsError, match="p is missing"):
        check_default(Settings(models={"m": own}), "m", CONTRACT)
    check_default(Settings(models={"m": msgspec.structs.replace(own, hybrid_key="")}), "m", CONTRACT)
