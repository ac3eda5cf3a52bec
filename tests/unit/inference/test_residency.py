"""What is kept, loaded and let go: the laws of the plan, whatever is wanted and whatever the budget."""

from hypothesis import given
from hypothesis import strategies as st

from fairway.inference.residency import Key, Plan, Resident, Wanted, over_budget, plan_residency


def key(name: str) -> Key:
    return Key(name, 1, f"sha256:{name}")


def want(name: str, size: int = 1, **how: bool) -> Wanted:
    return Wanted(key=key(name), bytes=size, **how)


def resident(name: str, size: int = 1, used: float = 0.0) -> Resident:
    return Resident(key=key(name), bytes=size, used=used)


def names(keys: tuple[Key, ...] | list[Key]) -> str:
    return "".join(sorted(k.model for k in keys))


def test_without_a_budget_everything_wanted_is_there_and_nothing_else() -> None:
    plan = plan_residency([want("a"), want("b", eager=True), want("c")], [resident("a"), resident("x")], 0)
    assert (names(plan.keep), names(plan.load), names(plan.unload)) == ("a", "b", "x")


def test_the_least_recently_used_goes_first_and_no_more_than_needed() -> None:
    there = [resident("a", 3, 30.0), resident("b", 3, 10.0), resident("c", 3, 20.0)]
    wanted = [want("a", 3), want("b", 3), want("c", 3), want("d", 3, must=True)]
    assert names(plan_residency(wanted, there, 9).unload) == "b"
    assert names(plan_residency(wanted, there, 12).unload) == ""


def test_pinned_ones_stay_and_what_does_not_fit_beside_them_is_refused() -> None:
    there = [resident("a", 3, 1.0), resident("b", 3, 2.0)]
    wanted = [want("a", 3, pinned=True), want("b", 3), want("c", 6, must=True), want("d", 3, must=True)]
    plan = plan_residency(wanted, there, 6)
    assert (names(plan.keep), names(plan.load), names(plan.unload), names(plan.refused)) == (
        "a",
        "d",
        "b",
        "c",
    )


def test_what_would_be_good_to_have_takes_nobodys_place() -> None:
    plan = plan_residency([want("a", 3), want("b", 3, eager=True)], [resident("a", 3)], 5)
    assert (names(plan.keep), names(plan.load), names(plan.refused)) == ("a", "", "")
    pinned = plan_residency([want("a", 3), want("b", 3, eager=True, pinned=True)], [resident("a", 3)], 5)
    assert (names(pinned.keep), names(pinned.load)) == ("", "b")


def test_another_digest_is_another_version() -> None:
    new = Wanted(key=Key("a", 1, "sha256:new"), bytes=4, must=True)
    plan = plan_residency([new], [resident("a", 4)], 4)
    assert plan == Plan(keep=(), load=(new.key,), unload=(key("a"),), refused=())


SIZES = st.integers(0, 10)
LETTERS = "abcdefgh"


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Wanted], list[Resident], int]:
    wanted = [
        want(
            name, draw(SIZES), eager=draw(st.booleans()), must=draw(st.booleans()), pinned=draw(st.booleans())
        )
        for name in draw(st.lists(st.sampled_from(LETTERS), unique=True))
    ]
    sizes = {w.key.model: w.bytes for w in wanted}
    there = [
        resident(name, sizes.get(name, draw(SIZES)), draw(st.floats(0, 100)))
        for name in draw(st.lists(st.sampled_from(LETTERS), unique=True))
    ]
    return wanted, there, draw(st.integers(0, 30))


@given(situations())
def test_the_laws_of_a_plan(situation: tuple[list[Wanted], list[Resident], int]) -> None:
    wanted, there, budget = situation
    plan = plan_residency(wanted, there, budget)
    by_key = {w.key: w for w in wanted}
    before = {r.key: r for r in there}
    keep, load, unload, refused = map(set, (plan.keep, plan.load, plan.unload, plan.refused))

    assert keep | unload == before.keys()
    assert not keep & unload
    assert load <= by_key.keys() - before.keys()
    assert not load & refused
    assert keep <= by_key.keys()  # what nobody wants goes

    must = {w.key for w in wanted if w.must or (w.pinned and w.eager)}
    assert must - before.keys() == (load | refused) & must  # who must come in does, or is refused
    assert refused <= must
    stays = {w.key for w in wanted if w.must or w.pinned} & before.keys()
    assert stays <= keep  # never let go while wanted

    size = sum(before[k].bytes for k in keep) + sum(by_key[k].bytes for k in load)
    was = sum(before[k].bytes for k in before.keys() & by_key.keys())
    if budget:
        assert size <= max(budget, was)
    else:
        assert not refused
        assert unload == before.keys() - by_key.keys()
    let_go = unload & by_key.keys()
    if not must - before.keys():
        assert not let_go  # nobody goes for what is only good to have
    for gone in let_go:
        for stayed in keep - stays:
            assert before[gone].used <= before[stayed].used


@given(situations(), st.sets(st.sampled_from(LETTERS)))
def test_the_laws_of_what_was_measured(
    situation: tuple[list[Wanted], list[Resident], int], staying: set[str]
) -> None:
    _, there, budget = situation
    stay = {key(name) for name in staying}
    out = over_budget(there, stay, budget)
    kept = sum(r.bytes for r in there if r.key in stay)
    if out is None:
        assert budget
        assert kept > budget
        return
    assert not stay & set(out)
    left = [r for r in there if r.key not in out]
    assert not budget or sum(r.bytes for r in left) <= budget
    if out:  # one less would not have been enough
        last = next(r for r in there if r.key == out[-1])
        assert sum(r.bytes for r in left) + last.bytes > budget
