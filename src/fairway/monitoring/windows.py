"""Windows made safe to keep and to show: every problem named, numbers that are numbers, text without control
characters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from fairway.core.clock import moment_of, utc_text
from fairway.core.errors import InvalidInput, MalformedInput, Problem
from fairway.core.incident import Finding, Window

MOST_WINDOWS = 1000
MOST_BYTES = 16 * 1024 * 1024
_NUMBERS = ("value", "effect", "p_value", "threshold", "weight")
_TEXTS = ("text", "field", "arm", "slice", "statistic")


def read_windows(content: bytes) -> tuple[Window, ...]:
    """A JSON array of windows, one window, or one a line. `MalformedInput` or `InvalidInput` name every problem."""
    if len(content) > MOST_BYTES:
        raise MalformedInput(f"Findings of {len(content)} bytes: at most {MOST_BYTES} are read at once.")
    try:
        value = msgspec.json.decode(content)
        values = value if isinstance(value, list) else [value]
    except (msgspec.DecodeError, RecursionError) as error:
        try:
            values = msgspec.json.Decoder().decode_lines(content)
        except (msgspec.DecodeError, RecursionError):
            raise MalformedInput(
                f"The findings are not JSON: {error}.",
                hint="Write an array of windows, or one window a line.",
            ) from error
    if not values:
        raise MalformedInput(
            "There are no windows in it.", hint="Write an array of windows, or one window a line."
        )
    if len(values) > MOST_WINDOWS:
        raise MalformedInput(f"{len(values)} windows: at most {MOST_WINDOWS} are read at once.")
    windows, problems = [], []
    for row, raw in enumerate(values):
        try:
            windows.append(checked(msgspec.convert(raw, Window)))
        except msgspec.ValidationError as error:
            problems.append(Problem(str(error), row=row))
        except InvalidInput as error:
            problems += [Problem(problem.reason, problem.field, row) for problem in error.problems]
    if problems:
        raise InvalidInput("The findings cannot be taken.", tuple(problems))
    return tuple(windows)


def checked(window: Window) -> Window:
    """The window with times as `core.clock` writes them and its findings clean; `InvalidInput` names every problem."""
    problems: list[Problem] = []
    times = {}
    for name in ("start", "end"):
        try:
            times[name] = utc_text(moment_of(getattr(window, name)))
        except (ValueError, OverflowError) as error:
            problems.append(Problem(f"is not a time with a zone ({error})", name))
    if not problems and times["end"] < times["start"]:
        problems.append(Problem("is before the start", "end"))
    if problems:
        raise InvalidInput("A window's times cannot be used.", tuple(problems))
    findings = tuple(_clean(finding) for finding in window.findings)
    kinds = tuple(dict.fromkeys([*window.kinds, *(finding.kind for finding in findings)]))
    return msgspec.structs.replace(
        window,
        **times,
        findings=findings,
        kinds=kinds,
        model=printable(window.model),
        digest=printable(window.digest),
    )


def printable(text: str) -> str:
    """The text on one line: control characters, which could forge a line of a log or a header of a mail, become
    spaces, and so do halves of characters, which no encoding can write."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _clean(finding: Finding) -> Finding:
    changed: dict[str, Any] = {}
    for names, is_good, mend in _RULES:
        for name in names:
            value = getattr(finding, name)
            if not is_good(value):
                changed[name] = mend(value)
    return msgspec.structs.replace(finding, **changed) if changed else finding


_RULES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (_NUMBERS, lambda value: value is None or math.isfinite(value), lambda value: None),
    (_TEXTS, lambda value: value == printable(value), printable),
)
