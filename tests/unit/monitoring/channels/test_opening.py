"""Every mistake in the settings is named, and no secret is."""

from pathlib import Path
from typing import Any

import pytest

from fairway.app.settings import read_settings
from fairway.core.alert_settings import AlertRule, AlertSettings, ChannelSettings
from fairway.core.errors import SettingsError
from fairway.monitoring.channels.opening import CHANNELS, channel_settings, open_channels
from fairway.monitoring.channels.secret import Secret

SMTP = {"host": "h", "sender": "a@example.org", "recipients": ("b@example.org",)}

TOML = """
[alerts]
open_after = 2
link = "https://fairway.example"

[[alerts.rules]]
name = "noise"
field = "noise_*"
ignore = true

[[alerts.rules]]
kind = "performance"
severity = "critical"
channels = ["ops"]

[alerts.channels.ops]
kind = "slack"
url = "env:SLACK_URL"
minimum = "critical"
models = ["pay*"]

[alerts.channels.hook]
kind = "webhook"
url = "https://example.org/hook"
secret = "file:/run/secrets/hook"
"""


def test_settings_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "fairway.toml").write_text(TOML)
    settings = read_settings(tmp_path, {"FAIRWAY_ALERTS_REMIND_HOURS": "0"}).alerts
    assert (settings.open_after, settings.remind_hours, len(settings.rules)) == (2, 0, 2)
    assert list(open_channels(settings, {})) == ["ops", "hook"]


def test_without_any_the_log_is_told() -> None:
    assert list(open_channels(AlertSettings(), {})) == ["log"]
    assert channel_settings(AlertSettings())["log"].minimum == "info"


@pytest.mark.parametrize("kind", list(CHANNELS))
def test_every_kind_can_be_opened(kind: Any) -> None:
    made = ChannelSettings(kind=kind, url="" if kind in ("smtp", "log") else "http://h/", **SMTP)
    assert open_channels(AlertSettings(channels={"c": made}), {})["c"].timeout_seconds == 10.0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "slack"}, "url is missing"),
        ({"kind": "teams", "url": "file:/x", "secret": "env:X"}, "secret is for webhooks"),
        ({"kind": "webhook", "url": "ftp://h"}, "not an address"),
        ({"kind": "webhook", "url": "http://h", "secret": "whsec_s3cret"}, "secret stands in the file"),
        ({"kind": "webhook", "url": "http://h", "headers": {"a b": "x"}}, "not the name of a header"),
        ({"kind": "webhook", "url": "http://h", "headers": {"Host": "x"}}, "Fairway's to set"),
        ({"kind": "webhook", "url": "http://h", "headers": {"X": "a\r\nY: b"}}, "no header may have"),
        ({"kind": "alertmanager", "url": "http://h", "labels": {"a-b": "x"}}, "not the name of a label"),
        ({"kind": "smtp"}, "host is missing; channel c: sender is missing; channel c: recipients is missing"),
        ({"kind": "smtp", **SMTP, "recipients": ("nobody",)}, "'nobody' is not a mail address"),
        ({"kind": "smtp", **SMTP, "sender": "a@b\r\nBcc: c@d"}, "not a mail address"),
        ({"kind": "smtp", **SMTP, "username": "u", "password": "s3cret"}, "password stands in the file"),
        ({"kind": "smtp", **SMTP, "username": "u"}, "go together"),
        ({"kind": "smtp", **SMTP, "username": "u", "password": "env:P", "security": "none"}, "without TLS"),
    ],
)
def test_mistakes_are_named_and_secrets_are_not(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as error:
        open_channels(AlertSettings(channels={"c": ChannelSettings(**values)}), {})
    assert "s3cret" not in str(error.value)


def test_all_mistakes_at_once() -> None:
    settings = AlertSettings(
        channels={"a b": ChannelSettings(kind="log"), "x": ChannelSettings(kind="slack")},
        rules=(AlertRule(name="r", channels=("y",)),),
    )
    with pytest.raises(SettingsError) as error:
        open_channels(settings, {})
    for part in ("rule r names the channel 'y'", "'a b' has a name", "channel x: url is missing"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        "open_after = 0",
        "flap_hours = -1",
        "remind = 3",
        'rules = [{severity = "bad"}]',
        "[alerts.channels.c]\nkind = 'pager'",
    ],
)
def test_values_that_are_none(values: str, tmp_path: Path) -> None:
    (tmp_path / "fairway.toml").write_text(f"[alerts]\n{values}\n")
    with pytest.raises(SettingsError, match="alerts"):
        read_settings(tmp_path, {})


def test_secrets(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(" v4lue \n")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff")
    assert Secret(f"file:{tmp_path}/s", {}).read() == "v4lue"
    assert Secret("env:A", {"A": "v4lue"}).read() == "v4lue"
    assert "v4lue" not in repr([Secret("v4lue", {}), Secret("env:A", {"A": "v4lue"})])
    for text in (
        "env:B",
        f"file:{tmp_path}/none",
        f"file:{tmp_path}/large",
        f"file:{tmp_path}/binary",
        f"file:{tmp_path}",
    ):
        with pytest.raises(SettingsError):
            Secret(text, {}).read()
