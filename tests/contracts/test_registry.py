"""What the registry does, on every pair of backends a user may choose."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairway.core.bundle import FORMAT
from fairway.core.errors import (
    AliasNotFound,
    AlreadyExists,
    Conflict,
    CorruptBundle,
    IncompatibleContract,
    InvalidInput,
    KeyNotFound,
    ModelNotFound,
    NewerFormat,
    NotFound,
    RouteConflict,
    VersionNotFound,
)
from fairway.core.route import Arm, Route, everything_to
from fairway.core.settings import RegistrySettings
from fairway.core.version import Reference
from fairway.registry.contents import hexadecimal
from fairway.registry.registry import RECENT, Registry, open_registry
from fairway.registry.snapshot import read_snapshot, snapshot_path, write_snapshot
from fairway.security.keys import AccessKey, new_key
from fairway.stores.revision import sqlite_revision
from tests.bundles import make_bundle, register
from tests.contracts.writers import assert_whole, move_on

OpenRegistry = Callable[[], Registry]
BACKENDS = ["sqlite, folder", "postgresql, s3", "memory, memory"]


@pytest.fixture(params=BACKENDS)
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> OpenRegistry:
    """Opens the same registry as often as it is called."""
    home = tmp_path / "home"
    settings = RegistrySettings(lock_timeout_seconds=60)
    if request.param == "postgresql, s3":
        s3 = request.getfixturevalue("s3")
        settings = RegistrySettings(
            database_url=request.getfixturevalue("postgres").new_database(),
            blobs_url=s3.new_bucket(),
            blobs_options=s3.options,
            lock_timeout_seconds=60,
        )
    elif request.param == "memory, memory":
        registry = open_registry(home, RegistrySettings(database_url="memory://", blobs_url="memory://"))
        return lambda: registry
    return lambda: open_registry(home, settings)


@pytest.fixture
def registry(open_again: OpenRegistry) -> Iterator[Registry]:
    with open_again() as registry:
        yield registry


@pytest.fixture
def three(registry: Registry, tmp_path: Path) -> Registry:
    """A registry with payments:1 to payments:3."""
    for number in (1, 2, 3):
        register(registry, tmp_path / f"bundle{number}", f"model {number}".encode())
    return registry


def _live(registry: Registry, version: int, name: str = "payments") -> Route:
    now = registry.route(name)
    revision = 0 if now is None else now.revision
    return registry.set_route(everything_to(name, version), expected_revision=revision, who="ann", why="go")


# Versions


def test_versions_count_from_one_and_keep_what_was_registered(registry: Registry, tmp_path: Path) -> None:
    first = register(registry, tmp_path / "a", b"a", note="the first", who="ann", why="new data")
    second = register(registry, tmp_path / "b", b"b", who="bob")
    other = register(registry, tmp_path / "c", b"a", name="fraud.v2_x-1")
    assert [(v.version, v.is_new) for v in (first, second, other)] == [(1, True), (2, True), (1, True)]
    assert [v.version for v in registry.versions("payments")] == [1, 2]
    found = registry.version("payments", 1)
    assert (found.note, found.created_by, found.engine, found.input_signature) == (
        "the first",
        "ann",
        "onnx",
        "s",
    )
    assert found.digest == first.digest == other.digest
    [change] = registry.history("fraud.v2_x-1")
    assert (change.what, change.before, change.who, change.why) == ("version", None, "ann", "test")
    assert msgspec.json.decode(change.after or "") == {"version": 1, "digest": first.digest}


def test_registering_the_same_bundle_again_gives_the_same_version(three: Registry, tmp_path: Path) -> None:
    revision = three.revision()
    three.set_alias("payments", "champion", 2, who="ann", why="")
    again = register(three, tmp_path / "again", b"model 2", note="other words", who="bob")
    assert (again.version, again.is_new, again.created_by, again.aliases) == (2, False, "ann", ("champion",))
    assert three.revision() == revision + 1  # the alias alone
    assert len(three.versions("payments")) == 3


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "é", "-a"])
def test_a_bad_model_name_is_refused(registry: Registry, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        register(registry, tmp_path / "a", b"a", name=name)
    assert registry.models() == ()


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_no_database_holds_is_refused(three: Registry, tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match="note"):
        register(three, tmp_path / "x", b"x", note=text)
    with pytest.raises(InvalidInput, match="why"):
        three.set_alias("payments", "a", 1, who="ann", why=text)
    assert three.revision() == 3


def test_a_bundle_that_is_not_whole_is_not_registered(registry: Registry, tmp_path: Path) -> None:
    def refused(digest: str, match: str, error: type[Exception] = CorruptBundle) -> None:
        with pytest.raises(error, match=match):
            registry.register(
                "payments",
                tmp_path / "b",
                digest=digest,
                engine="onnx",
                input_signature="s",
                who="ann",
                why="",
            )
        assert registry.models() == ()

    refused("sha256:" + "0" * 64, r"manifest\.json")
    good = make_bundle(tmp_path / "b", b"model")
    refused("sha256:" + "0" * 64, "altered")
    (tmp_path / "b/engine/model.onnx").write_bytes(b"mod")
    refused(good, r"engine/model\.onnx")
    (tmp_path / "b/engine/model.onnx").unlink()
    refused(good, r"engine/model\.onnx is missing")
    refused(make_bundle(tmp_path / "b", b"model", extra={"../outside": b"x"}), "outside the bundle")
    refused(make_bundle(tmp_path / "b", b"model", format=FORMAT + 1), "Upgrade Fairway", NewerFormat)


def test_unknown_models_versions_and_aliases_are_named(three: Registry) -> None:
    with pytest.raises(ModelNotFound, match=r"'fraud'.*payments"):
        three.versions("fraud")
    with pytest.raises(VersionNotFound, match=r"no version 4.*1 to 3"):
        three.version("payments", 4)
    with pytest.raises(AliasNotFound, match=r"'champion'.*none yet"):
        three.version("payments", "champion")
    for call in (three.route, three.history, lambda name: three.resolve(Reference(name))):
        with pytest.raises(ModelNotFound):
            call("fraud")
    with pytest.raises(ModelNotFound):
        three.rollback("fraud", who="ann", why="")
    with pytest.raises(ModelNotFound):
        three.snapshot(("payments", "fraud"))


def test_a_reference_resolves_to_route_alias_or_version(three: Registry) -> None:
    assert three.resolve("payments").version == 3  # no route: the latest
    three.set_alias("payments", "champion", 2, who="ann", why="")
    three.set_route(
        Route(model="payments", arms=(Arm(1, 0.9), Arm(3, 0.1))), expected_revision=0, who="ann", why=""
    )
    assert three.resolve("payments").version == 1
    assert three.resolve("payments@champion").version == 2
    assert three.resolve(Reference("payments", version=3)).version == 3
    assert three.version("payments").version == 1
    assert three.version("payments", "champion").aliases == ("champion",)


def test_models_are_summed_up(three: Registry, tmp_path: Path) -> None:
    register(three, tmp_path / "x", b"x", name="fraud")
    three.set_alias("payments", "champion", 1, who="ann", why="")
    route = _live(three, 2)
    fraud, payments = three.models()
    assert (fraud.name, fraud.versions, fraud.latest, fraud.aliases, fraud.route) == ("fraud", 1, 1, {}, None)
    assert (payments.versions, payments.latest, payments.aliases, payments.route) == (
        3,
        3,
        {"champion": 1},
        route,
    )


# Aliases


def test_aliases_move_and_go(three: Registry) -> None:
    three.set_alias("payments", "champion", 1, who="ann", why="first")
    three.set_alias("payments", "champion", 2, who="bob", why="better", expected=1)
    three.set_alias("payments", "champion", 2, who="eve", why="the same: nothing changes")
    three.delete_alias("payments", "champion", who="ann", why="over")
    with pytest.raises(AliasNotFound):
        three.delete_alias("payments", "champion", who="ann", why="again")
    changes = [c for c in three.history("payments") if c.what == "alias:champion"]
    assert [(c.who, c.before, c.after) for c in changes] == [
        ("ann", "2", None),
        ("bob", "1", "2"),
        ("ann", None, "1"),
    ]


def test_an_alias_is_compared_before_it_is_set(three: Registry) -> None:
    three.set_alias("payments", "champion", 1, who="ann", why="", expected=None)
    with pytest.raises(Conflict, match="is version 1, not not set"):
        three.set_alias("payments", "champion", 2, who="ann", why="", expected=None)
    with pytest.raises(Conflict, match="is version 1, not version 3"):
        three.set_alias("payments", "champion", 2, who="ann", why="", expected=3)
    with pytest.raises(VersionNotFound):
        three.set_alias("payments", "champion", 9, who="ann", why="")
    with pytest.raises(InvalidInput):
        three.set_alias("payments", "7", 1, who="ann", why="")
    assert three.version("payments", "champion").version == 1


# Routes


def test_a_route_is_compared_before_it_is_set(three: Registry) -> None:
    assert three.route("payments") is None
    with pytest.raises(RouteConflict):
        three.set_route(everything_to("payments", 1), expected_revision=1, who="ann", why="")
    first = three.set_route(everything_to("payments", 1), expected_revision=0, who="ann", why="")
    assert first == three.route("payments") == everything_to("payments", 1, revision=1)
    same = three.set_route(everything_to("payments", 1, revision=7), expected_revision=1, who="ann", why="")
    assert same == first
    with pytest.raises(RouteConflict, match="revision 1, not 0"):
        three.set_route(everything_to("payments", 2), expected_revision=0, who="ann", why="")
    split = Route(model="payments", arms=(Arm(1, 0.5), Arm(2, 0.5)), shadows=(3,), salt="x")
    assert three.set_route(split, expected_revision=1, who="ann", why="").revision == 2
    assert [c.what for c in three.history("payments")].count("route") == 2


def test_a_route_names_known_versions_with_one_contract(three: Registry, tmp_path: Path) -> None:
    register(three, tmp_path / "other", b"other", input_signature="another")
    with pytest.raises(VersionNotFound):
        _live(three, 9)
    for arms, shadows in [((Arm(1, 0.5), Arm(4, 0.5)), ()), ((Arm(1),), (4,))]:
        with pytest.raises(IncompatibleContract, match="payments:1 and payments:4"):
            three.set_route(
                Route(model="payments", arms=arms, shadows=shadows), expected_revision=0, who="ann", why=""
            )
    assert three.route("payments") is None
    assert _live(three, 4).arms == (Arm(4),)  # alone it may be live


def test_rollback_goes_back_and_further_back(three: Registry) -> None:
    with pytest.raises(NotFound, match="no earlier route"):
        three.rollback("payments", who="ann", why="")
    for version in (1, 2, 3):
        _live(three, version)
    back = three.rollback("payments", who="ann", why="errors")
    assert back == three.route("payments") == everything_to("payments", 2, revision=4)
    assert three.rollback("payments", who="ann", why="still").arms == (Arm(1),)
    with pytest.raises(NotFound, match="no earlier route"):
        three.rollback("payments", who="ann", why="more")
    _live(three, 3)
    assert three.rollback("payments", who="ann", why="again").arms == (Arm(1),)
    change = three.history("payments", limit=1)[0]
    assert (change.who, change.why, change.restores) == ("ann", "again", 4)


def test_history_is_a_chain_with_the_newest_first(three: Registry) -> None:
    for version in (1, 2, 3):
        _live(three, version)
    history = three.history("payments", limit=None)
    assert [c.sequence for c in history] == [6, 5, 4, 3, 2, 1]
    assert [c.before for c in history[:3]] == [c.after for c in history[1:3]] + [None]
    assert len(three.history("payments", limit=2)) == 2


# Bundles


def test_a_fetched_bundle_is_the_registered_one(
    three: Registry, open_again: OpenRegistry, tmp_path: Path
) -> None:
    version = three.version("payments", 2)
    with open_again() as other:
        directory = other.fetch(version)
    assert directory == tmp_path / "home" / "bundles" / hexadecimal(version.digest)
    names = ["contract.json", "engine/model.onnx", "manifest.json", "timings.json"]
    assert (
        sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()) == names
    )
    for name in names:
        assert (directory / name).read_bytes() == (tmp_path / "bundle2" / name).read_bytes()
    assert three.fetch(version) == directory
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_a_damaged_unpacked_bundle_is_unpacked_again(three: Registry) -> None:
    version = three.version("payments", 1)
    directory = three.fetch(version)
    model = directory / "engine" / "model.onnx"
    manifest = directory / "manifest.json"
    for damage, path in ((Path.unlink, model), (Path.unlink, manifest), (_truncate, model)):
        damage(path)
        assert three.fetch(version) == directory
        assert model.read_bytes() == b"model 1"
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def _truncate(path: Path) -> None:
    """As a copy that stopped half-way would: the stored blob, which may be the same inode, is not touched."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:3])


def test_many_threads_fetch_one_bundle(three: Registry, open_again: OpenRegistry) -> None:
    version = three.version("payments", 3)

    def fetch(_: int) -> Path:
        with open_again() as mine:
            return mine.fetch(version)

    with ThreadPoolExecutor(4) as threads:
        directories = set(threads.map(fetch, range(8)))
    [directory] = directories
    assert (directory / "engine/model.onnx").read_bytes() == b"model 3"
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_leftovers_go_and_nothing_else(three: Registry, tmp_path: Path) -> None:
    bundles = tmp_path / "home" / "bundles"
    (bundles / ".half" / "engine").mkdir(parents=True)
    (tmp_path / "orphan").write_bytes(b"nobody names this")
    three._blobs.put(tmp_path / "orphan")
    assert three.clean() == three.clean(older_than_seconds=3600)
    assert (bundles / ".half").exists()
    cleaned = three.clean(older_than_seconds=-60)
    assert (cleaned.blobs, cleaned.bundles) == (1, 1)
    for version in three.versions("payments"):
        three.fetch(version)
    assert len(list(bundles.iterdir())) == 3


# Snapshots


def test_a_snapshot_holds_what_a_server_needs(three: Registry, tmp_path: Path) -> None:
    home = tmp_path / "home"
    register(three, tmp_path / "x", b"x", name="fraud")
    three.set_alias("payments", "champion", 1, who="ann", why="")
    assert three.snapshot().models == ()  # nothing is routed yet
    route = _live(three, 2)
    snapshot = three.snapshot()
    assert snapshot.revision == three.revision() == 6
    [model] = snapshot.models
    assert model.route == route
    assert [(v.version, v.aliases) for v in model.versions] == [(1, ("champion",)), (2, ()), (3, ())]
    for version in model.versions:
        assert (Path(version.directory) / "manifest.json").is_file()
    named = three.snapshot(("fraud",))
    assert named.models[0].route == everything_to("fraud", 1)
    for each in (snapshot, named):
        write_snapshot(home, each)
        assert read_snapshot(home, each.names) == each
    home.rename(tmp_path / "moved")
    moved = read_snapshot(tmp_path / "moved")
    assert moved is not None
    assert Path(moved.models[0].versions[0].directory).is_relative_to(tmp_path / "moved")


def test_a_listing_says_what_to_serve_before_it_is_unpacked(three: Registry, tmp_path: Path) -> None:
    register(three, tmp_path / "fraud", b"fraud", name="fraud")
    _live(three, 1)
    listing = three.listing()
    assert listing.revision == three.revision()
    [payments] = listing.models
    assert [three.unpacked(version) for version in payments.versions] == [None] * len(payments.versions)
    path = three.fetch(payments.versions[0])
    assert three.unpacked(payments.versions[0]) == path
    also = three.listing((), ["fraud", "nobody", "payments"])
    assert [listed.route.model for listed in also.models] == ["payments", "fraud"]
    with pytest.raises(ModelNotFound):
        three.listing(("nobody",))


def test_a_snapshot_holds_the_recent_versions_and_those_in_use(registry: Registry, tmp_path: Path) -> None:
    for number in range(1, RECENT + 4):
        register(registry, tmp_path / str(number), str(number).encode())
    registry.set_alias("payments", "champion", 1, who="ann", why="")
    _live(registry, 2)
    [model] = registry.snapshot().models
    assert [v.version for v in model.versions] == [1, 2, *range(4, RECENT + 4)]


def test_every_change_makes_the_revision_grow(registry: Registry, tmp_path: Path) -> None:
    revisions = [registry.revision()]

    def changed() -> None:
        revisions.append(registry.revision())
        if registry.where.endswith("registry.db"):
            assert sqlite_revision(Path(registry.where)) == revisions[-1]

    register(registry, tmp_path / "a", b"a")
    changed()
    register(registry, tmp_path / "b", b"b")
    changed()
    registry.set_alias("payments", "champion", 1, who="ann", why="")
    changed()
    _live(registry, 1)
    changed()
    _live(registry, 2)
    changed()
    registry.rollback("payments", who="ann", why="")
    changed()
    registry.delete_alias("payments", "champion", who="ann", why="")
    changed()
    registry.add_key(_key()[0], who="ann", why="")
    changed()
    registry.revoke_key("app", who="ann", why="")
    changed()
    assert revisions == list(range(10))


# Keys


def _key(name: str = "app", **values: Any) -> tuple[AccessKey, str]:
    return new_key(name, **{"scopes": ("infer",), "now": datetime.now(UTC), "who": "ann", **values})


def test_keys_are_made_and_revoked_and_stay_known(three: Registry, open_again: OpenRegistry) -> None:
    assert three.keys() == ()
    key, secret = _key(models=("payments",), rate=5)
    assert three.add_key(key, who="ann", why="the web shop") == key
    with open_again() as other:
        assert other.keys() == (key,)
        revoked = other.revoke_key("app", who="bob", why="leaked")
        assert revoked.revoked is not None
        assert msgspec.structs.replace(revoked, revoked=None) == key
    assert three.keys() == (revoked,)
    with pytest.raises(KeyNotFound, match=f"'app' was revoked already, at {revoked.revoked}"):
        three.revoke_key("app", who="ann", why="")
    renewed = three.add_key(_key()[0], who="ann", why="")
    assert three.keys() == (revoked, renewed)
    assert secret not in str(three.keys())


def test_a_key_has_a_name_of_its_own_and_models_that_exist(three: Registry) -> None:
    three.add_key(_key()[0], who="ann", why="")
    revision = three.revision()
    with pytest.raises(AlreadyExists, match=r"'app' already.*fairway keys revoke app"):
        three.add_key(_key()[0], who="ann", why="")
    with pytest.raises(ModelNotFound, match=r"'fraud'.*payments"):
        three.add_key(_key("other", models=("payments", "fraud"))[0], who="ann", why="")
    with pytest.raises(KeyNotFound, match=r"no key 'other'.*Keys in use: app"):
        three.revoke_key("other", who="ann", why="")
    with pytest.raises(InvalidInput, match="why"):
        three.revoke_key("app", who="ann", why="a\0b")
    assert three.revision() == revision


def test_the_history_of_keys_says_who_when_and_why_but_no_secret(three: Registry) -> None:
    before = three.history("payments", limit=None)
    key, secret = _key(models=("payments",), concurrency=2)
    three.add_key(key, who="ann", why="the web shop")
    three.revoke_key("app", who="bob", why="leaked")
    revoked, made = three.key_history()
    assert (made.what, made.before, made.who, made.why) == ("key:app", None, "ann", "the web shop")
    assert (revoked.what, revoked.who, revoked.why) == ("key:app", "bob", "leaked")
    assert revoked.before == made.after
    told = msgspec.json.decode(made.after or "")
    assert (told["scopes"], told["models"], told["concurrency"]) == (["infer"], ["payments"], 2)
    for text in (secret, secret[16:], key.hash):
        assert text not in str(three.key_history())
    assert three.history("payments", limit=None) == before
    assert three.key_history(limit=1) == (revoked,)


def test_a_snapshot_holds_the_keys_for_its_owner_alone(three: Registry, tmp_path: Path) -> None:
    _live(three, 1)
    key, secret = _key()
    three.add_key(key, who="ann", why="")
    three.add_key(_key("gone")[0], who="ann", why="")
    three.revoke_key("gone", who="ann", why="")
    for names in ((), ("payments",)):
        snapshot = three.snapshot(names)
        assert snapshot.keys == three.keys()
        write_snapshot(tmp_path / "home", snapshot)
        path = snapshot_path(tmp_path / "home", names)
        assert path.stat().st_mode & 0o777 == 0o600
        assert secret not in path.read_text()
        assert read_snapshot(tmp_path / "home", names) == snapshot


# Several writers


def test_writers_in_many_threads_lose_nothing(
    registry: Registry, open_again: OpenRegistry, tmp_path: Path
) -> None:
    workers, each = 4, 5
    register(registry, tmp_path / "first", b"first")

    def write(worker: int) -> None:
        with open_again() as mine:
            for number in range(each):
                register(
                    mine, tmp_path / f"{worker}-{number}", f"{worker} {number}".encode(), who=f"w{worker}"
                )
                register(mine, tmp_path / f"same-{worker}-{number}", f"same {number}".encode())
                move_on(mine, who=f"w{worker}")

    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(write, range(workers)))
    assert_whole(registry, versions=1 + workers * each + each, moves=workers * each)
