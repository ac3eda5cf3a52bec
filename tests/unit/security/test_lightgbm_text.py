from __future__ import annotations

import pickle
import re

import lightgbm
import numpy as np
import pytest

from fairway.core.errors import CorruptBundle
from fairway.security.lightgbm_text import check_lightgbm
from fairway.security.pickle_file import load_pickle


def _trained(**parameters: object) -> str:
    random = np.random.default_rng(0)
    rows = random.normal(size=(400, 4))
    rows[:, 3] = random.integers(0, 40, len(rows))
    target = rows[:, 0] + 3 * np.sin(rows[:, 3] * 5)
    data = lightgbm.Dataset(rows, target, categorical_feature=[3])
    settings = {"verbose": -1, "min_data_per_group": 1, "num_leaves": 12} | parameters
    return str(lightgbm.train(settings, data, 4).model_to_string())


TEXT = _trained()


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        {"min_data_in_leaf": 10_000},
        {"linear_tree": True},
    ],
)
def test_real_models_pass(parameters: dict[str, object]) -> None:
    check_lightgbm(_trained(**parameters), "model.txt")


def test_a_pickled_booster_is_looked_at_too() -> None:
    booster = lightgbm.Booster(model_str=TEXT)
    load_pickle(pickle.dumps(booster))
    damaged = re.sub(rb"\nleft_child=\d", b"\nleft_child=0", pickle.dumps(booster), count=1)
    with pytest.raises(CorruptBundle, match="pickled LightGBM booster"):
        load_pickle(damaged)


def test_every_cut_is_found() -> None:
    end = TEXT.index("end of parameters")
    for place in range(0, end, 97):
        with pytest.raises(CorruptBundle, match=r"model\.txt"):
            check_lightgbm(TEXT[:place], "model.txt")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("left_child", "999999"),
        ("left_child", "0"),
        ("right_child", "-999999"),
        ("split_feature", "77"),
        ("split_feature", "-1"),
        ("num_leaves", "99999999"),
        ("num_leaves", "-3"),
        ("num_leaves", "x"),
        ("cat_boundaries", "5"),
        ("max_feature_idx", "1"),
        ("tree_sizes", "3"),
    ],
)
def test_altered_numbers_are_found(name: str, value: str) -> None:
    altered = re.sub(rf"^({name}=)(-?\d+)", rf"\g<1>{value}", TEXT, count=1, flags=re.MULTILINE)
    if name == "tree_sizes":
        altered = re.sub(r"^tree_sizes=.*$", "tree_sizes=3", TEXT, flags=re.MULTILINE)
    assert altered != TEXT
    with pytest.raises(CorruptBundle):
        check_lightgbm(altered, "model.txt")


def test_a_missing_tree_is_found() -> None:
    without = re.sub(r"Tree=2\n.*?\n\n\n", "", TEXT, flags=re.DOTALL)
    assert without != TEXT
    with pytest.raises(CorruptBundle, match="4 trees and holds 3"):
        check_lightgbm(without, "model.txt")
