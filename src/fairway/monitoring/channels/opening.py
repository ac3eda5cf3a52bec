"""Channels by their settings. Every mistake in the settings is named before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from email.errors import HeaderParseError
from email.headerregistry import Address
from importlib import import_module

from fairway.core.alert_settings import AlertSettings, ChannelSettings
from fairway.core.errors import SettingsError
from fairway.monitoring.channels.http import checked_url
from fairway.monitoring.channels.secret import is_reference
from fairway.monitoring.sender import Channel

CHANNELS = {
    "webhook": "fairway.monitoring.channels.webhook:WebhookChannel",
    "slack": "fairway.monitoring.channels.slack:SlackChannel",
    "teams": "fairway.monitoring.channels.teams:TeamsChannel",
    "alertmanager": "fairway.monitoring.channels.alertmanager:AlertmanagerChannel",
    "smtp": "fairway.monitoring.channels.smtp:SmtpChannel",
    "log": "fairway.monitoring.channels.log:LogChannel",
}
DEFAULT = {"log": ChannelSettings(kind="log", minimum="info")}
"""What is told when nobody says where."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MOST_CHANNELS = 50
_MOST_RULES = 500


def channel_settings(settings: AlertSettings) -> Mapping[str, ChannelSettings]:
    return settings.channels or DEFAULT


def open_channels(settings: AlertSettings, environ: Mapping[str, str]) -> dict[str, Channel]:
    """By name. SettingsError names every mistake; secrets are read when they are used."""
    mistakes = list(mistakes_of(settings))
    if mistakes:
        raise SettingsError("The settings of [alerts] cannot be used: " + "; ".join(mistakes) + ".")
    return {
        name: _kind(channel.kind)(channel, environ, address=settings.link, name=name)
        for name, channel in channel_settings(settings).items()
    }


def mistakes_of(settings: AlertSettings) -> Iterator[str]:
    if len(settings.channels) > _MOST_CHANNELS:
        yield f"{len(settings.channels)} channels, at most {_MOST_CHANNELS} are used"
    if len(settings.rules) > _MOST_RULES:
        yield f"{len(settings.rules)} rules, at most {_MOST_RULES} are used"
    known = channel_settings(settings)
    for number, rule in enumerate(settings.rules, 1):
        for name in rule.channels or ():
            if name not in known:
                yield f"rule {rule.name or number} names the channel {name!r}, which there is not"
    for name, channel in settings.channels.items():
        if not _NAME.fullmatch(name):
            yield f"channel {name!r} has a name with other than letters, digits, - and _"
        for mistake in _mistakes(channel):
            yield f"channel {name}: {mistake}"


def _mistakes(channel: ChannelSettings) -> Iterator[str]:
    if channel.kind == "smtp":
        yield from _smtp_mistakes(channel)
    elif channel.kind != "log":
        if not channel.url:
            yield "url is missing"
        elif not is_reference(channel.url):
            try:
                checked_url(channel.url)
            except SettingsError as error:
                yield str(error).rstrip(".")
    if channel.secret and channel.kind != "webhook":
        yield f"secret is for webhooks, not for {channel.kind}"
    for name in ("secret", "password"):
        value = getattr(channel, name)
        if value and not is_reference(value):
            yield f"{name} stands in the file itself; write env:VARIABLE or file:PATH"
    for name, value in channel.headers.items():
        if not _TOKEN.fullmatch(name):
            yield f"{name!r} is not the name of a header"
        elif name.lower() in ("host", "content-length", "transfer-encoding", "content-type"):
            yield f"the header {name} is Fairway's to set"
        elif not value.isascii() or not value.isprintable():
            yield f"the header {name} has characters that no header may have"
    for name in channel.labels:
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
            yield f"{name!r} is not the name of a label"


def _smtp_mistakes(channel: ChannelSettings) -> Iterator[str]:
    for name in ("host", "sender", "recipients"):
        if not getattr(channel, name):
            yield f"{name} is missing"
    for address in (*channel.recipients, *([channel.sender] if channel.sender else [])):
        if not _is_address(address):
            yield f"{address!r} is not a mail address"
    if channel.security == "none" and (channel.username or channel.password):
        yield "a password is not sent without TLS (security = 'none')"
    if bool(channel.username) != bool(channel.password):
        yield "username and password go together"


def _is_address(text: str) -> bool:
    try:
        return bool(text.isprintable() and Address(addr_spec=text).domain)
    except (HeaderParseError, ValueError, IndexError):
        return False


def _kind(name: str) -> Callable[..., Channel]:
    module, _, attribute = CHANNELS[name].partition(":")
    found: Callable[..., Channel] = getattr(import_module(module), attribute)
    return found
