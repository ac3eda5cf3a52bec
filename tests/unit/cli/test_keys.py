"""`fairway keys` as an operator types it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fairway.app.home import open_home
from fairway.cli.main import main
from fairway.registry.snapshot import ServingSnapshot, read_snapshot, write_snapshot
from fairway.security.keys import secret_hash, secret_id
from tests.bundles import register


class Shell:
    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["keys", *arguments, "--home", str(self.home)])
        shown = self._capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    def json(self, *arguments: str) -> Any:
        code, out, err = self(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "home", capsys)


def test_a_secret_is_printed_alone_and_once(shell: Shell) -> None:
    code, out, err = shell("create", "web-shop", "--expires", "90d")
    secret = out.strip()
    assert code == 0
    assert secret_id(secret.encode())
    assert "not shown again" in err
    assert "infer on all models" in err
    with open_home(shell.home) as place:
        [key] = place.registry.keys()
    assert key.hash == secret_hash(secret.encode())
    for more in (["list"], ["list", "--json"], ["history"], ["history", "--json"], ["list", "--all"]):
        told = "".join(shell(*more)[1:])
        assert "web-shop" in told
        assert secret not in told
        assert key.hash not in told
    with closing(sqlite3.connect(shell.home / "registry.db")) as registry:
        dump = "\n".join(registry.iterdump())
    assert secret not in dump
    assert secret[16:] not in dump


def test_everything_a_key_may_say(shell: Shell, tmp_path: Path) -> None:
    with open_home(shell.home) as place:
        register(place.registry, tmp_path / "bundle", b"model")
    made = shell.json(
        "create", "app", "--scope", "infer", "--scope", "metrics", "--model", "payments", "--expires", "2090-01-01",
        "--rate", "100", "--concurrency", "8", "--why", "the web shop",
    )  # fmt: skip
    assert made.pop("secret").startswith(f"fw_{made['id']}_")
    assert made.pop("state", None) is None
    [listed] = shell.json("list")
    assert listed.pop("state") == "active"
    assert listed == made
    assert (made["scopes"], made["models"], made["expires"]) == (
        ["infer", "metrics"],
        ["payments"],
        "2090-01-01T00:00:00.000000Z",
    )
    assert (made["rate"], made["burst"], made["concurrency"]) == (100.0, 100, 8)
    assert "hash" not in made
    out = shell("list")[1]
    assert "100/s, burst 100; 8 in" in " ".join(out.split())
    [change] = shell.json("history")
    assert (change["why"], change["what"]) == ("the web shop", "key:app")


def test_revoking(shell: Shell) -> None:
    shell("create", "a")
    shell("create", "b")
    code, out, err = shell("revoke", "a", "--why", "leaked")
    assert (code, out.startswith("revoked a ("), err) == (0, True, "")
    assert [key["name"] for key in shell.json("list")] == ["b"]
    assert [key["state"] for key in shell.json("list", "--all")] == ["revoked", "active"]
    assert "No key is left" in shell("revoke", "b")[2]
    assert [change["why"] for change in shell.json("history", "--limit", "2")] == ["keys revoke", "leaked"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create", "a b"], 4, "not a name for a key"),
        (["create", "a", "--scope", "all"], 4, "'all' is not a scope"),
        (["create", "a", "--expires", "soon"], 4, "'soon' is not a time"),
        (["create", "a", "--expires", "2001-01-01"], 4, "past"),
        (["create", "a", "--rate", "0"], 4, "rate of 0"),
        (["create", "a", "--model", "nowhere"], 3, "'nowhere'"),
        (["create", "taken"], 6, "fairway keys revoke taken"),
        (["revoke", "nobody"], 3, "no key 'nobody'. Keys in use: taken"),
    ],
)
def test_what_cannot_be_done_is_said(shell: Shell, arguments: list[str], code: int, said: str) -> None:
    shell("create", "taken")
    ended, out, err = shell(*arguments)
    assert (ended, out) == (code, "")
    assert said in err


def test_without_keys_it_says_what_that_means(shell: Shell) -> None:
    assert "loopback only" in shell("list")[1]
    assert shell.json("list") == []


def test_snapshots_of_the_home_know_at_once(shell: Shell, tmp_path: Path) -> None:
    """A server that starts from one, the registry away, lets in nobody who was revoked."""
    with open_home(shell.home) as place:
        register(place.registry, tmp_path / "bundle", b"model")
        current = place.registry.snapshot(("payments",))
    behind = ServingSnapshot(revision=0, models=())
    write_snapshot(shell.home, current)
    write_snapshot(shell.home, behind)
    (shell.home / "snapshots" / "broken.json").write_text("{")
    shell("create", "app")
    shell("revoke", "app")
    with open_home(shell.home) as place:
        fresh = place.registry.snapshot(("payments",))
    assert read_snapshot(shell.home, ("payments",)) == fresh
    assert fresh.keys[0].revoked is not None
    told = read_snapshot(shell.home)
    assert told is not None
    assert (told.revision, told.keys) == (0, fresh.keys)  # still behind, but for the keys
