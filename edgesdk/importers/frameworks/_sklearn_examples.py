"""Rows that an estimator might be asked about, made from what it remembers of its training.

Numbers around 0 would all fall on one side of a tree's first comparison, so rows are drawn
around the means, thresholds or vectors that the estimator holds. A row that lies on the edge of
a step (a tree's threshold, a tie of votes) within a float32's rounding may rightly be answered
either way, by the framework too: such rows are left out of the comparison, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.importers.frameworks._boosters import comparisons_of

__all__ = ["Rows", "choose_rows", "compares"]

Rows = NDArray[np.float32]
_SEED = 20240229
#: How far a row is moved to see whether its answer is a matter of rounding.
_NUDGE = 2.0**-20
_STEADY = 2e-5
_ROUNDS = 6


def choose_rows(
    estimator: Any, width: int, count: int, answer: Callable[[Rows], list[NDArray[np.generic]]]
) -> tuple[Rows, int, int]:
    """Draw rows whose answers do not hang on rounding.

    Args:
        estimator: What it remembers decides where rows lie.
        width: Number of features.
        count: How many rows are wanted.
        answer: The framework's answers, each with a row for each of its input's.

    Returns:
        The rows, how many were left out, and of how many. Where too few are steady the others
        fill up, so there are always ``count``.
    """
    middle, spread = _around(estimator, width)
    draw = np.random.default_rng(_SEED)
    kept: list[Rows] = []
    shaky: list[Rows] = []
    for _ in range(_ROUNDS):
        rows = (middle + spread * draw.standard_normal((count, width))).astype(np.float32)
        if _only_positive(estimator):
            rows = np.abs(rows)
        steady = _steady(rows, spread, answer, draw)
        kept += list(rows[steady])
        shaky += list(rows[~steady])
        if len(kept) >= count:
            break
    chosen = [*kept, *shaky][:count]
    return np.stack(chosen), len(shaky), len(kept) + len(shaky)


def _steady(
    rows: Rows,
    spread: NDArray[np.float64],
    answer: Callable[[Rows], list[NDArray[np.generic]]],
    draw: np.random.Generator,
) -> NDArray[np.bool_]:
    """Say for which rows a nudge of about a rounding changes nothing but by a rounding."""
    first = answer(rows)
    steady = ~_tied(first, len(rows))
    for _ in range(2):
        way = draw.choice([-1.0, 1.0], rows.shape)
        size = _NUDGE * np.maximum(np.abs(rows), spread)
        again = answer((rows + way * size).astype(np.float32))
        for one, other in zip(first, again, strict=True):
            if one.shape[:1] != rows.shape[:1] or one.dtype.kind not in "iufb":
                continue
            apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
            largest = max(1.0, float(np.abs(one.astype(np.float64)).max()))
            bound = _STEADY * largest if one.dtype.kind == "f" else 0.5
            steady &= apart.reshape(len(rows), -1).max(axis=1) <= bound
    return steady


def _tied(answers: list[NDArray[np.generic]], count: int) -> NDArray[np.bool_]:
    """Say for which rows two classes are as likely as each other, as votes of trees may be.

    Which of them is the label is then a matter of how the votes were added up.
    """
    tied = np.zeros(count, bool)
    if len(answers) < 2 or answers[0].dtype.kind not in "iub":
        return tied
    for scores in answers[1:]:
        if scores.ndim == 2 and scores.shape[0] == count and scores.shape[1] > 1:
            best = np.sort(scores.astype(np.float64), axis=1)[:, -2:]
            tied |= best[:, 1] - best[:, 0] <= _STEADY * np.abs(best).max(axis=1)
    return tied


def _only_positive(estimator: Any) -> bool:
    """Say whether somewhere in a pipeline counts are taken, or logarithms."""
    names = {"MultinomialNB", "ComplementNB", "CategoricalNB"}
    steps = [step for _, step in getattr(estimator, "steps", [("", estimator)])]
    return any(
        type(step).__name__ in names or getattr(step, "method", "") == "box-cox"
        for step in steps
    )


def _around(estimator: Any, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give where an estimator's inputs lie, feature by feature, and how wide they spread."""
    middle, spread = np.zeros(width), np.ones(width)
    for find in (_of_columns, _of_steps, _of_scaling, _of_vectors, _of_thresholds):
        found = find(estimator, width)
        if found is None:
            continue
        known = np.isfinite(found[0]) & np.isfinite(found[1])
        middle[known] = found[0][known]
        spread[known] = found[1][known]
        break
    spread[spread <= 0] = 1.0
    return middle, spread


_Found = tuple[NDArray[np.float64], NDArray[np.float64]] | None


def _of_steps(estimator: Any, width: int) -> _Found:
    """Ask the first step that does anything."""
    for _, step in getattr(estimator, "steps", ()):
        if step is not None and step != "passthrough":
            return _around(step, width)
    return None


def _of_columns(estimator: Any, width: int) -> _Found:
    """Ask each transformer of a ColumnTransformer about its columns."""
    if not hasattr(estimator, "transformers_"):
        return None
    middle, spread = np.zeros(width), np.ones(width)
    for _, transformer, columns in estimator.transformers_:
        chosen = np.atleast_1d(np.arange(width)[columns])
        if transformer not in ("drop", "passthrough") and len(chosen):
            middle[chosen], spread[chosen] = _around(transformer, len(chosen))
    return middle, spread


def _of_scaling(estimator: Any, width: int) -> _Found:
    low, high = (_vector(estimator, name, width) for name in ("data_min_", "data_max_"))
    if low is not None and high is not None:
        return (low + high) / 2, (high - low) / 4
    size = _vector(estimator, "max_abs_", width)
    if size is not None:
        return np.zeros(width), size / 2
    middle = _vector(estimator, "mean_", width)
    middle = middle if middle is not None else _vector(estimator, "center_", width)
    spread = _vector(estimator, "scale_", width)
    if middle is None:
        return None
    return middle, spread if spread is not None else np.maximum(np.abs(middle), 1.0)


def _of_vectors(estimator: Any, width: int) -> _Found:
    """Look at rows of the training data, or of classes, that an estimator keeps."""
    for name in ("_fit_X", "support_vectors_", "theta_", "means_", "cluster_centers_"):
        kept = getattr(estimator, name, None)
        if isinstance(kept, np.ndarray) and kept.ndim == 2 and kept.shape[1] == width:
            return kept.mean(axis=0), kept.std(axis=0)
    return None


def _vector(estimator: Any, name: str, width: int) -> NDArray[np.float64] | None:
    value = getattr(estimator, name, None)
    if isinstance(value, np.ndarray) and value.shape == (width,):
        return value.astype(np.float64)
    return None


def _of_thresholds(estimator: Any, width: int) -> _Found:
    """Take the mean and the spread of what trees compare each feature with."""
    features: list[NDArray[np.int64]] = []
    thresholds: list[NDArray[np.float64]] = []
    for feature, threshold in _comparisons(estimator):
        features.append(np.asarray(feature, np.int64))
        thresholds.append(np.asarray(threshold, np.float64))
    if not features:
        return None
    feature, threshold = np.concatenate(features), np.concatenate(thresholds)
    middle, spread = np.full((2, width), np.nan)
    for number in range(width):
        mine = threshold[(feature == number) & np.isfinite(threshold)]
        if len(mine):
            middle[number] = mine.mean()
            apart, far = float(mine.std()), max(abs(float(mine.mean())), 1e-6)
            # one threshold, or many that are the same, say nothing of how wide values spread
            spread[number] = apart if apart > far / 1000 else far / 2
    return middle, spread


def compares(estimator: Any) -> bool:
    """Say whether an estimator compares features with thresholds, as trees do."""
    return next(iter(_comparisons(estimator)), None) is not None


def _comparisons(estimator: Any) -> Iterable[tuple[Any, Any]]:
    tree = getattr(estimator, "tree_", None)
    if tree is not None:
        inner = tree.children_left != -1
        yield tree.feature[inner], tree.threshold[inner]
    for each in np.ravel(np.asarray(getattr(estimator, "estimators_", ()), object)):
        yield from _comparisons(each)
    for stage in getattr(estimator, "_predictors", ()):
        for each in stage:
            inner = each.nodes["is_leaf"] == 0
            yield each.nodes["feature_idx"][inner], each.nodes["num_threshold"][inner]
    booster = getattr(estimator, "booster", None) or getattr(estimator, "booster_", None)
    if hasattr(estimator, "get_booster"):
        booster = estimator.get_booster()
    found = None if booster is None else comparisons_of(booster)
    if found is not None:
        yield found
