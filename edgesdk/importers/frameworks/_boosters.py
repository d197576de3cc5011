"""XGBoost and LightGBM: their converters made known to skl2onnx, and bare boosters dressed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.importers.job import CannotExport

__all__ = ["BoostedModel", "comparisons_of", "dressed", "register_boosters"]

_SPLIT = re.compile(r"\[f(\d+)<=?([-+.\deE]+)\]")


class BoostedModel:
    """A LightGBM file as an estimator: what it predicts, and with which chances.

    Args:
        booster: A ``lightgbm.Booster``.
        name: The file, for errors.
    """

    def __init__(self, booster: Any, name: str) -> None:
        self.booster = booster
        self.n_features_in_ = int(booster.num_feature())
        objective = str(booster.dump_model(num_iteration=1).get("objective", "")).split(" ")[0]
        self.is_classifier = objective in ("binary", "multiclass", "multiclassova")
        if objective in ("lambdarank", "rank_xendcg", "cross_entropy", "cross_entropy_lambda"):
            raise CannotExport(
                f"cannot import {name}: its objective is {objective!r}, which is not converted",
                hint="classifiers and regressors are",
            )

    def predict(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """Give the class of each row, or the value."""
        if not self.is_classifier:
            return np.asarray(self.booster.predict(rows))
        return np.asarray(self.predict_proba(rows).argmax(axis=1))

    def predict_proba(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """Give the chance of each class."""
        found = np.asarray(self.booster.predict(rows))
        return np.stack([1 - found, found], axis=1) if found.ndim == 1 else found


def dressed(estimator: Any, name: str) -> Any:
    """Give a bare LightGBM booster the methods of an estimator; other objects stay."""
    if type(estimator).__module__.startswith("lightgbm") and hasattr(estimator, "num_feature"):
        return BoostedModel(estimator, name)
    return estimator


def comparisons_of(booster: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Give the features and thresholds that a booster's trees compare; None if unknown."""
    if hasattr(booster, "get_dump"):
        found = [pair for tree in booster.get_dump() for pair in _SPLIT.findall(tree)]
        features = np.array([int(feature) for feature, _ in found], np.int64)
        return features, np.array([float(value) for _, value in found])
    if hasattr(booster, "model_to_string"):
        return _lightgbm_comparisons(booster.model_to_string())
    return None


def _lightgbm_comparisons(text: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    features: list[str] = []
    thresholds: list[str] = []
    for line in text.splitlines():
        key, _, values = line.partition("=")
        if key == "split_feature":
            features += values.split()
        elif key == "threshold":
            thresholds += values.split()
    count = min(len(features), len(thresholds))
    return np.array(features[:count], np.int64), np.array(thresholds[:count], np.float64)


def register_boosters(packages: set[str]) -> None:
    """Tell skl2onnx how the estimators of these packages are converted."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    if "xgboost" in packages:
        import xgboost
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost

        for kind in (xgboost.XGBClassifier, xgboost.XGBRFClassifier):
            update_registered_converter(
                kind,
                f"EdgesdkXGBoost{kind.__name__}",
                calculate_linear_classifier_output_shapes,
                convert_xgboost,
                options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
            )
        for kind in (xgboost.XGBRegressor, xgboost.XGBRFRegressor):
            update_registered_converter(
                kind,
                f"EdgesdkXGBoost{kind.__name__}",
                calculate_linear_regressor_output_shapes,
                convert_xgboost,
            )
    if "lightgbm" in packages:
        import lightgbm
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

        update_registered_converter(
            lightgbm.LGBMClassifier,
            "EdgesdkLightGbmClassifier",
            calculate_linear_classifier_output_shapes,
            convert_lightgbm,
            options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
        )
        update_registered_converter(
            lightgbm.LGBMRegressor,
            "EdgesdkLightGbmRegressor",
            calculate_linear_regressor_output_shapes,
            convert_lightgbm,
            options={"split": None},
        )
