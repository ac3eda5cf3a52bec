"""Finds what a caller names in the registry's rows, or says what is there instead; checks what is given."""

from __future__ import annotations

from fairway.core.errors import (
    AliasNotFound,
    IncompatibleContract,
    InvalidInput,
    ModelNotFound,
    VersionNotFound,
)
from fairway.core.version import ModelVersion, Reference
from fairway.stores.base import Rows


def resolved(rows: Rows, reference: Reference) -> ModelVersion:
    """A version by number or alias; by name alone the first arm of the route, or the latest without one."""
    name = reference.model
    if reference.alias is not None:
        return known_version(rows, name, aliased(rows, name, reference.alias))
    if reference.version is not None:
        return known_version(rows, name, reference.version)
    latest = latest_version(rows, name)
    route = rows.routes(name).get(name)
    return known_version(rows, name, latest if route is None else route.arms[0].version)


def known_version(rows: Rows, name: str, number: int) -> ModelVersion:
    found = rows.version(name, number)
    if found is None:
        latest = latest_version(rows, name)
        raise VersionNotFound(f"{name} has no version {number}.", hint=f"Its versions are 1 to {latest}.")
    return found


def aliased(rows: Rows, name: str, alias: str) -> int:
    latest_version(rows, name)
    aliases = rows.aliases(name).get(name, {})
    if alias not in aliases:
        known = ", ".join(sorted(aliases)) or "none yet"
        raise AliasNotFound(f"{name} has no alias {alias!r}.", hint=f"Its aliases: {known}.")
    return aliases[alias]


def latest_version(rows: Rows, name: str) -> int:
    """`ModelNotFound` when there is none."""
    latest = rows.latest(name)
    if latest == 0:
        raise no_such_model(rows, name)
    return latest


def no_such_model(rows: Rows, name: str) -> ModelNotFound:
    known = ", ".join(sorted(rows.models())) or "none yet"
    return ModelNotFound(f"There is no model {name!r}.", hint=f"Registered models: {known}.")


def check_compatible(versions: list[ModelVersion]) -> None:
    """Versions behind one route share one input contract."""
    first, *others = versions
    for other in others:
        if other.input_signature != first.input_signature:
            raise IncompatibleContract(
                f"{first.model}:{first.version} and {other.model}:{other.version} take different inputs, "
                "so they cannot share a route.",
                hint="Route all traffic to one of them, or register the new one under another name.",
            )


def check_texts(**texts: str) -> None:
    """Text that every database stores as it is."""
    for name, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"{name} is not valid Unicode text: {text!r}.") from None
        if "\0" in text:  # PostgreSQL stores none
            raise InvalidInput(f"{name} holds a NUL character: {text!r}.")
