"""A registered model version, and how people and programs refer to one."""

from __future__ import annotations

import re

import msgspec

from fairway.core.errors import InvalidInput

CHAMPION = "champion"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}\Z")


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable version. `digest` is the bundle's identity ("sha256:..."); `created` is UTC ISO 8601.

    `input_signature` is the contract's: versions behind one route must share it.
    """

    model: str
    version: int
    digest: str
    engine: str
    created: str
    created_by: str
    note: str = ""
    input_signature: str = ""
    aliases: tuple[str, ...] = ()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the append-only history: who changed what from what to what, when and why.

    `what` is "version", "alias:NAME", "route" or, under no model (""), "key:NAME"; `before` and `after` are its values as JSON text.
    `restores` is set by a rollback: the sequence of the change whose route it brought back.
    """

    sequence: int
    model: str
    what: str
    before: str | None
    after: str | None
    who: str
    why: str
    when: str
    restores: int | None = None


class Reference(msgspec.Struct, frozen=True):
    """`payments` (live route), `payments@champion` (alias) or `payments:3` (version)."""

    model: str
    alias: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        if self.alias is not None:
            return f"{self.model}@{self.alias}"
        return self.model if self.version is None else f"{self.model}:{self.version}"


def check_model_name(name: str) -> str:
    """`name` unchanged, or InvalidInput: names stand in URLs, paths and metrics labels."""
    if not _NAME.match(name):
        raise InvalidInput(
            f"{name!r} is not a model name: use letters, digits, '.', '_' and '-', starting with a letter or digit."
        )
    return name


def check_alias(alias: str) -> str:
    if not _ALIAS.match(alias):
        raise InvalidInput(
            f"{alias!r} is not an alias: use letters, digits, '.', '_' and '-', starting with a letter."
        )
    return alias


def parse_reference(text: str) -> Reference:
    """Reads `name`, `name@alias` or `name:version`."""
    if "@" in text:
        name, _, alias = text.partition("@")
        return Reference(check_model_name(name), alias=check_alias(alias))
    if ":" in text:
        name, _, version = text.rpartition(":")
        if not version.isdecimal() or len(version) > 9 or int(version) < 1:
            raise InvalidInput(
                f"{version!r} in {text!r} is not a version: versions are whole numbers from 1."
            )
        return Reference(check_model_name(name), version=int(version))
    return Reference(check_model_name(text))
