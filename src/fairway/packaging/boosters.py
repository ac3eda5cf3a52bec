"""Lets skl2onnx meet boosters inside meta-estimators: stacking, calibration, bagging, voting.

Boosters on their own or at the end of a pipeline never come here; they are read by `convert_xgboost` and
`convert_lightgbm`, which are exact.
"""

from __future__ import annotations

import functools
import importlib.util


@functools.cache
def register() -> None:
    """Registers the onnxmltools converters of the boosters that are installed; once per process."""
    if importlib.util.find_spec("onnxmltools") is None:
        return
    from skl2onnx import update_registered_converter  # optional and slow to import, like all below
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    classifier = {"nocl": [True, False], "zipmap": [True, False, "columns"], "raw_scores": [True, False]}
    if importlib.util.find_spec("xgboost") is not None:
        import xgboost
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost

        update_registered_converter(
            xgboost.XGBClassifier,
            "XGBoostXGBClassifier",
            calculate_linear_classifier_output_shapes,
            convert_xgboost,
            options=classifier,
        )
        update_registered_converter(
            xgboost.XGBRegressor,
            "XGBoostXGBRegressor",
            calculate_linear_regressor_output_shapes,
            convert_xgboost,
        )
    if importlib.util.find_spec("lightgbm") is not None:
        import lightgbm
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

        update_registered_converter(
            lightgbm.LGBMClassifier,
            "LightGbmLGBMClassifier",
            calculate_linear_classifier_output_shapes,
            convert_lightgbm,
            options=classifier,
        )
        update_registered_converter(
            lightgbm.LGBMRegressor,
            "LightGbmLGBMRegressor",
            calculate_linear_regressor_output_shapes,
            convert_lightgbm,
            options={"split": None},
        )
