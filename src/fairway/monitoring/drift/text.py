"""Evidence for texts beside their length: which words they use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fairway.core.columns import Array
from fairway.monitoring.drift.evidence import (
    Evidence,
    Form,
    ScoreTest,
    keep_varying,
    matched_moments,
    standardise,
)

VOCABULARY = 48
"""Words compared one by one: the most frequent ones of both sides together."""
_CHARACTERS = 4000
_WORD = re.compile(r"\w+", re.UNICODE)


def words_of(text: str | None) -> frozenset[str]:
    """The different words of the first few thousand characters, in lower case."""
    return frozenset(_WORD.findall(text[:_CHARACTERS].lower())) if text else frozenset()


def vocabulary(name: str, before: Sequence[str | None], after: Sequence[str | None]) -> Evidence | None:
    """Is each frequent word in as many texts as before? Features are 0 or 1 a text."""
    found = [words_of(text) for text in (*before, *after)]
    counts = Counter(word for words in found for word in words)
    least = max(len(found) / max(min(len(before), len(after)), 1), 2.0)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    chosen = [word for word, texts in ordered[: VOCABULARY * 2] if least <= texts < len(found)][:VOCABULARY]
    if not chosen or not before or not after:
        return None
    place = {word: i for i, word in enumerate(chosen)}
    table = np.zeros((len(found), len(chosen)), np.float32)
    for row, words in enumerate(found):
        for word in words:
            if word in place:
                table[row, place[word]] = 1.0
    each = tuple(range(len(chosen)))
    tests = (ScoreTest("vocabulary", each, Form.squares, 0.6), ScoreTest("one word", each, Form.largest, 0.4))
    return of_rows(name, tests, table, len(before))


def of_rows(name: str, tests: Sequence[ScoreTest], table: Array, before: int) -> Evidence | None:
    """Evidence from the scores `[rows, features]` of single rows, the first `before` of them the reference's."""
    centred = table - table.mean(axis=0)
    variance = np.square(centred).mean(axis=0)
    kept_tests, kept = keep_varying(tests, variance > 1e-9)
    if not kept_tests:
        return None
    centred, variance = centred[:, kept], variance[kept]
    sums = centred[before:].sum(axis=0, dtype=float)
    third = (centred * centred * centred).mean(axis=0)
    z, skew = standardise(sums, variance, third, len(table) - before, before)
    correlation = centred.T @ centred / len(table) / np.sqrt(np.outer(variance, variance))
    kept_tests = tuple(matched_moments(test, correlation) for test in kept_tests)
    return Evidence(name, kept_tests, z, skew, correlation, centred.astype(np.float32))


def unknown_words(before: Sequence[str | None], after: Sequence[str | None]) -> float:
    """Share of the current texts' words that no text of the reference has."""
    known = frozenset(word for text in before for word in words_of(text))
    total = unknown = 0
    for text in after:
        words = words_of(text)
        total, unknown = total + len(words), unknown + len(words - known)
    return unknown / total if total else 0.0


def word_change(before: Sequence[str | None], after: Sequence[str | None]) -> float:
    """Largest change, over all words, of the share of texts that have it."""
    ours, theirs = Counter[str](), Counter[str]()
    for counter, texts in ((theirs, before), (ours, after)):
        for text in texts:
            counter.update(words_of(text))
    return max(
        (
            abs(ours[word] / max(len(after), 1) - theirs[word] / max(len(before), 1))
            for word in {*ours, *theirs}
        ),
        default=0.0,
    )
