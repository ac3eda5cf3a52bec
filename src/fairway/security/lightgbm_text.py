"""Looks at a LightGBM text model before LightGBM does: its own reader crashes the process on damaged files."""

from __future__ import annotations

import itertools
import re

from fairway.core.errors import CorruptBundle

_ENDS = (("end of trees", "its last tree"), ("end of parameters", "the end of its parameters"))
_PER_SPLIT = ("split_feature", "threshold", "decision_type", "left_child", "right_child")
_INTEGER = re.compile(r"-?\d{1,10}")


def check_lightgbm(text: str, source: str) -> None:
    """Raises `CorruptBundle` unless the trees are all there and point only inside themselves."""
    for marker, what in _ENDS:
        if f"\n{marker}" not in text:
            raise _damaged(source, f"it breaks off before {what}")
    head, *trees = text.partition("\nend of trees")[0].split("\nTree=")
    header = _fields(head)
    sizes = header.get("tree_sizes", "").split()
    features = _integers(header.get("max_feature_idx", ""), source)
    if len(features) != 1:
        raise _damaged(source, "it does not say how many features it has")
    if len(sizes) != len(trees):
        raise _damaged(source, f"it says it has {len(sizes)} trees and holds {len(trees)}")
    for number, section in enumerate(trees):
        _check_tree(_fields(section), features[0], f"{source}: tree {number}")


def _check_tree(tree: dict[str, str], last_feature: int, source: str) -> None:
    leaves = _integers(tree.get("num_leaves", ""), source)
    if len(leaves) != 1 or leaves[0] < 1:
        raise _damaged(source, "it has no number of leaves")
    splits = leaves[0] - 1
    for name in _PER_SPLIT:
        if len(tree.get(name, "").split()) != splits:
            raise _damaged(source, f"{name} has not one value for each of its {splits} splits")
    if len(tree.get("leaf_value", "").split()) != leaves[0]:
        raise _damaged(source, f"leaf_value has not one value for each of its {leaves[0]} leaves")
    if any(not 0 <= feature <= last_feature for feature in _integers(tree["split_feature"], source)):
        raise _damaged(source, "it tests a feature the model does not have")
    for name in ("left_child", "right_child"):
        for parent, child in enumerate(_integers(tree[name], source)):
            inside = parent < child < splits if child >= 0 else ~child < leaves[0]
            if not inside:
                raise _damaged(source, f"{name} points outside the tree")
    _check_categories(tree, source)


def _check_categories(tree: dict[str, str], source: str) -> None:
    """A categorical split's threshold is the number of its set; sets lie between `cat_boundaries`."""
    decisions = _integers(tree["decision_type"], source)
    sets = [
        threshold
        for threshold, decision in zip(tree["threshold"].split(), decisions, strict=True)
        if decision & 1
    ]
    if not sets:
        return
    boundaries = _integers(tree.get("cat_boundaries", ""), source)
    words = len(tree.get("cat_threshold", "").split())
    rising = all(a <= b for a, b in itertools.pairwise(boundaries))
    if not boundaries or boundaries[0] != 0 or not rising or boundaries[-1] != words:
        raise _damaged(source, "its sets of categories do not fit")
    if any(not text.isdigit() or int(text) >= len(boundaries) - 1 for text in sets):
        raise _damaged(source, "it tests categories that are not there")


def _fields(section: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in section.splitlines() if "=" in line)


def _integers(text: str, source: str) -> list[int]:
    parts = text.split()
    if not all(_INTEGER.fullmatch(part) for part in parts):
        raise _damaged(source, "a whole number is not one")
    return [int(part) for part in parts]


def _damaged(source: str, what: str) -> CorruptBundle:
    return CorruptBundle(
        f"{source} is a damaged LightGBM model: {what}.",
        hint="It was truncated or altered: save it again with booster.save_model.",
    )
