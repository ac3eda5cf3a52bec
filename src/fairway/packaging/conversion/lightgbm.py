"""LightGBM boosters in the common tree form, read from LightGBM's own text format."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairway.core.columns import Array
from fairway.core.contract import Task
from fairway.packaging.conversion.forest import Tree, join
from fairway.packaging.conversion.graph import Unsupported
from fairway.packaging.conversion.tree_model import Link, TreeModel

_IDENTITY = ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg")
_EXP = ("poisson", "gamma", "tweedie")
_ZERO = float(np.float32(1e-35))  # LightGBM reads numbers this close to 0 as 0
_CATEGORICAL, _DEFAULT_LEFT = 1, 2  # bits of decision_type; the next two are the kind of missing value
_MISSING_ZERO, _MISSING_NAN = 1, 2


def read_lightgbm(booster: Any, *, classes: Array | None = None) -> TreeModel:
    """`classes` are the labels, 0.. when not given. The best iteration is used, as LightGBM itself does."""
    text = booster.model_to_string()
    head, *sections = text.split("\nTree=")
    header = _fields(head)
    targets = int(header["num_tree_per_iteration"])
    trees = [_tree(_fields(section.split("\n\n")[0]), i % targets) for i, section in enumerate(sections)]
    if not trees:
        raise Unsupported("a LightGBM booster without trees")
    objective, *details = header.get("objective", "none").split()
    task, link, slope = _meaning(objective, details)
    average = "average_output" in head.splitlines()
    forest = join(
        trees,
        features=int(header["max_feature_idx"]) + 1,
        targets=targets,
        compares="float64",
        divisor=float(len(trees) // targets) if average else 1.0,
    )
    if task is Task.classification and classes is None:
        classes = np.arange(max(targets, 2))
    return TreeModel(forest, task, link, classes=classes, slope=slope, categories=_categories(booster))


def _fields(section: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in section.splitlines() if "=" in line)


def _numbers(fields: dict[str, str], name: str, dtype: type) -> Array:
    return np.array(fields.get(name, "").split(), dtype=dtype)


def _tree(fields: dict[str, str], target: int) -> Tree:
    if fields.get("is_linear", "0") != "0":
        raise Unsupported("LightGBM trees with linear leaves")
    leaf = _numbers(fields, "leaf_value", np.float64)
    branches = int(fields["num_leaves"]) - 1
    decision = _numbers(fields, "decision_type", np.int64)
    categorical = (decision & _CATEGORICAL) > 0
    missing = (decision >> 2) & 3
    if (missing[~categorical] == _MISSING_ZERO).any():
        raise Unsupported("LightGBM's zero_as_missing")
    threshold = _numbers(fields, "threshold", np.float64)
    # without a branch for missing values, LightGBM reads them as 0
    left_if_missing = np.where(missing == _MISSING_NAN, (decision & _DEFAULT_LEFT) > 0, threshold >= 0)

    def children(name: str) -> Array:
        child = _numbers(fields, name, np.int64)
        return np.where(child < 0, branches + ~child, child)

    def padded(values: Array, fill: float) -> Array:
        return np.concatenate([values, np.full(len(leaf), fill, values.dtype)])

    members = {}
    if categorical.any():
        bounds, words = (
            _numbers(fields, "cat_boundaries", np.int64),
            _numbers(fields, "cat_threshold", np.uint32),
        )
        for node in np.flatnonzero(categorical):
            entry = int(threshold[node])
            bits = np.unpackbits(
                words[bounds[entry] : bounds[entry + 1]].astype("<u4").view(np.uint8), bitorder="little"
            )
            members[int(node)] = [float(code) for code in np.flatnonzero(bits)]
    return Tree(
        feature=padded(_numbers(fields, "split_feature", np.int64), 0),
        threshold=padded(np.where(categorical, 0.0, _beside_zero(threshold)), 0.0),
        left=padded(children("left_child"), -1),
        right=padded(children("right_child"), -1),
        missing_left=np.concatenate([left_if_missing & ~categorical, np.zeros(len(leaf), bool)]),
        leaf=np.concatenate([np.zeros(branches), leaf]),
        target=target,
        members=members,
    )


def _beside_zero(threshold: Array) -> Array:
    """Thresholds moved so that plain comparison treats numbers next to 0 as LightGBM does."""
    moved = np.where(threshold < 0, np.nextafter(-_ZERO, -np.inf), _ZERO)
    return np.where(np.abs(threshold) <= _ZERO, moved, threshold)


def _meaning(objective: str, details: list[str]) -> tuple[Task, Link, float]:
    options = dict(detail.split(":", 1) for detail in details if ":" in detail)
    if objective == "binary":
        return Task.classification, "sigmoid", float(options.get("sigmoid", 1.0))
    if objective == "multiclass":
        return Task.classification, "softmax", 1.0
    if objective in _IDENTITY and "sqrt" not in details:
        return Task.regression, "identity", 1.0
    if objective in _EXP:
        return Task.regression, "exp", 1.0
    raise Unsupported(f"the LightGBM objective {' '.join([objective, *details])!r}")


def _categories(booster: Any) -> dict[int, list[Any]]:
    """Categories of pandas columns, which LightGBM stores in the order of those columns."""
    stored = booster.pandas_categorical or []
    if not stored:
        return {}
    infos = booster.dump_model(num_iteration=1)["feature_infos"]
    names = booster.feature_name()
    coded = [i for i, name in enumerate(names) if infos.get(name, {}).get("values")]
    if len(coded) != len(stored):
        raise Unsupported("LightGBM categories that do not name their columns")
    return dict(zip(coded, stored, strict=True))
