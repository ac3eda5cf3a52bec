"""What the rules of `[alerts]` say about a finding, and which channels an event is for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import msgspec

from fairway.core.alert_settings import AlertRule, AlertSettings, ChannelSettings
from fairway.core.clock import after
from fairway.core.incident import Event, Finding, Incident, Silence, rank


class Judgement(msgspec.Struct, frozen=True):
    """A finding as the rules see it."""

    finding: Finding
    open_after: int
    resolve_after: int
    channels: tuple[str, ...] | None


def judged(model: str, finding: Finding, settings: AlertSettings) -> Judgement | None:
    """None for a finding that is ignored."""
    rule = next((rule for rule in settings.rules if _rule_matches(rule, model, finding)), None)
    if rule is None:
        return Judgement(finding, settings.open_after, settings.resolve_after, None)
    small = rule.minimum_effect is not None and abs(finding.effect or 0.0) < rule.minimum_effect
    if rule.ignore or (small and finding.effect is not None):
        return None
    if rule.severity is not None:
        finding = msgspec.structs.replace(finding, severity=rule.severity)
    return Judgement(
        finding,
        rule.open_after or settings.open_after,
        rule.resolve_after or settings.resolve_after,
        rule.channels,
    )


def is_silenced(incident: Incident, silences: Iterable[Silence], now: str) -> bool:
    """Whether silences match every confirmed signal of the incident."""
    active = [silence for silence in silences if now < silence.until and now >= after(silence.since, -3600)]
    confirmed = [signal.finding for signal in incident.signals if signal.confirmed]
    if not confirmed:
        return incident.muted
    return all(
        any(_silence_matches(silence, incident, finding) for silence in active) for finding in confirmed
    )


def channels_for(event: Event, channels: Mapping[str, ChannelSettings]) -> tuple[str, ...]:
    """The names of the channels that are told."""
    if not event.notify:
        return ()
    named = event.incident.channels
    return tuple(
        name
        for name, channel in channels.items()
        if (named is None or name in named)
        and event.kind in channel.events
        and rank(event.incident.severity) >= rank(channel.minimum)
        and any(matches(event.incident.model, pattern) for pattern in channel.models)
    )


def matches(text: str, pattern: str) -> bool:
    """As a shell matches; a name with brackets in it matches itself."""
    return text == pattern or fnmatchcase(text, pattern)


def _rule_matches(rule: AlertRule, model: str, finding: Finding) -> bool:
    return (
        matches(model, rule.model)
        and matches(finding.kind, rule.kind)
        and matches(finding.field, rule.field)
        and matches(finding.slice, rule.slice)
        and matches(finding.arm, rule.arm)
    )


def _silence_matches(silence: Silence, incident: Incident, finding: Finding) -> bool:
    return all(
        not pattern or matches(text, pattern)
        for text, pattern in (
            (incident.id, silence.incident),
            (incident.model, silence.model),
            (finding.kind, silence.kind),
            (finding.field, silence.field),
            (finding.slice, silence.slice),
        )
    )
