"""`fairway incidents`, `fairway alerts` and `fairway monitor` as an operator types them."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fairway.cli.main import main
from fairway.core.clock import after, utc_now
from fairway.security.webhooks import new_secret, verify
from tests.receivers import receiving

NOW = utc_now()


def window(hour: int, *findings: dict[str, Any]) -> dict[str, Any]:
    end = after(NOW, (hour - 100) * 3600)
    return {
        "model": "payments",
        "digest": "sha256:1",
        "version": 3,
        "start": after(end, -3600),
        "end": end,
        "kinds": ["drift"],
        "findings": list(findings),
    }


DRIFT = {"kind": "drift", "field": "amount", "effect": 0.4}


class Shell:
    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        home = (
            ()
            if arguments[:2] in (("alerts", "secret"), ("monitor", "rules"))
            else ("--home", str(self.home))
        )
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *home])
        shown = self._capsys.readouterr()
        assert int(ended.value.code or 0) == code, shown.err
        return shown.out + shown.err

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))

    def report(self, *windows: dict[str, Any]) -> Any:
        file = self.home.parent / "windows.json"
        file.write_text(json.dumps(windows))
        return self.json("incidents", "report", str(file))


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    (tmp_path / "home").mkdir()
    return Shell(tmp_path / "home", capsys)


def test_the_life_of_an_incident(shell: Shell) -> None:
    assert "No open incidents" in shell("incidents", "list", "--check")
    (opened,) = shell.report(window(1, DRIFT))
    name = opened["incident"]["id"]
    assert name in shell("incidents", "list", "--check", code=1)
    (listed,) = shell.json("incidents", "list", "--model", "payments")
    assert (listed["id"], listed["state"], listed["acknowledged"]) == (name, "open", None)
    shown = shell("incidents", "show", name)
    assert "1. drift of amount, effect 0.4" in shown
    assert shell.json("incidents", "ack", name, "--why", "mine")["acknowledged"]["why"] == "mine"
    assert "open, acknowledged" in shell("incidents", "list")
    made = shell.json("incidents", "silence", name, "--for", "2h", "--why", "later")
    assert shell.json("incidents", "show", name)["muted"] is True
    assert made["id"] in shell("incidents", "silences")
    assert "is over" in shell("incidents", "unsilence", made["id"])
    assert "No silences" in shell("incidents", "silences")
    assert f"resolved {name}" in shell("incidents", "resolve", name)
    assert shell.json("incidents", "list") == []
    assert len(shell.json("incidents", "list", "--all")) == 1
    events = shell.json("incidents", "events")
    kinds = [event["kind"] for event in events["events"]]
    assert kinds == ["opened", "acknowledged", "silenced", "unsilenced", "resolved"]
    assert events["cursor"] == 5
    assert shell.json("incidents", "events", "--after", "4")["cursor"] == 5
    assert "unsilenced" in shell("incidents", "events")


def test_findings_from_standard_input(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.TextIOWrapper(io.BytesIO(json.dumps(window(1, DRIFT)).encode()))
    monkeypatch.setattr(sys, "stdin", content)
    assert "opened" in shell("incidents", "report", "-")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("incidents", "show", "nothing"), 3, "no incident 'nothing'"),
        (("incidents", "unsilence", "nothing"), 3, "no silence 'nothing'"),
        (("incidents", "silence"), 4, "matches everything"),
        (("incidents", "silence", "--model", "m", "--for", "soon"), 4, "no time to wait for"),
        (("incidents", "report", "/nowhere.json"), 4, "cannot be read"),
        (("alerts", "test", "nothing"), 3, "there are: log"),
        (("alerts", "deliver", "--channel", "nothing"), 3, "there are: log"),
        (("alerts", "retry", "nothing"), 3, "no message 'nothing'"),
        (("alerts", "retry"), 2, "name messages, or --all"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], code: int, says: str, shell: Shell) -> None:
    assert says in shell(*arguments, code=code)


def test_from_a_receiver_that_refuses_to_one_that_takes(shell: Shell) -> None:
    secret = new_secret()
    (shell.home / "secret").write_text(secret)
    with receiving() as receiver:
        (shell.home / "fairway.toml").write_text(
            "[alerts]\nretry_first_seconds = 0.001\n[alerts.channels.hook]\nkind = 'webhook'\n"
            f"url = '{receiver.url}'\nsecret = 'file:{shell.home}/secret'\n"
        )
        assert "hook took it" in shell("alerts", "test", "hook")
        shell.report(window(1, DRIFT))
        receiver.status, receiver.answer = 400, b"what is this"
        assert "hook: 0 sent" in shell("alerts", "deliver")
        (dead,) = shell.json("alerts", "queue", "--dead")
        assert "answered 400: what is this" in dead["failure"]
        receiver.status = 503
        assert "1 messages wait again" in shell("alerts", "retry", "--all")
        told = shell.json("alerts", "deliver", code=1)
        assert told["waiting"] == {"hook": 1}
        assert "answered 503" in told["failures"]["hook"]
        (row,) = shell.json("alerts", "channels")
        assert (row["name"], row["waiting"], row["dead"]) == ("hook", 1, 0)
        receiver.status = 200
        assert shell.json("alerts", "deliver", "--channel", "hook")["sent"] == {"hook": 1}
        assert "No messages wait" in shell("alerts", "queue")
        shell.report(window(2))
        assert "hook" in shell("alerts", "channels")
    assert "s3cret" not in json.dumps(dead)
    assert {verify(secret, *pair) for pair in zip(receiver.headers, receiver.bodies, strict=True)}


def test_settings_that_cannot_be_used_are_named(shell: Shell) -> None:
    (shell.home / "fairway.toml").write_text("[alerts.channels.a]\nkind = 'slack'\n")
    assert "channel a: url is missing" in shell("incidents", "list", code=1)


def test_a_secret_and_rules_are_printed(shell: Shell) -> None:
    assert shell("alerts", "secret").startswith("whsec_")
    assert 'up{job=\\"models\\"}' in shell("monitor", "rules", "--job", "models")
