"""Metrics of one output beside labels: hits, areas, errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from edgesdk.data.auc import measure_auc
from edgesdk.data.measures import HitMeasure, Measure, ResampledMeasure
from edgesdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "MANY_CLASSES",
    "check_labels",
    "goes_with",
    "is_column",
    "is_map",
    "is_matrix",
    "measure_output",
    "refuse_nan",
]

MANY_CLASSES = 5


def refuse_nan(name: str, output: np.ndarray, metric: str, *, is_places: bool = False) -> None:
    """Refuse an output with values that are not a number; for errors, infinities too.

    Raises:
        DataError: There are some; it says in how many rows, and in which first.
    """
    import numpy as np

    if is_places:
        bad = np.less(output, 0).reshape(len(output), -1).any(axis=1)
    elif output.dtype.kind != "f":
        return
    else:
        # an infinite score is still the largest or the smallest; of errors nothing is left
        may_be_infinite = metric.startswith(("top", "pixel"))
        odd = np.isnan(output) if may_be_infinite else np.logical_not(np.isfinite(output))
        bad = np.asarray(odd).reshape(len(output), -1).any(axis=1)
    if bad.any():
        raise DataError(
            f"cannot measure {metric}: output {name!r} holds NaN or infinity in "
            f"{int(bad.sum())} of {len(bad)} rows, first in row {int(bad.argmax())}",
            hint="look at one sample with edgesdk run, or try --precision fp32",
            rows=int(bad.sum()),
            first=int(bad.argmax()),
        )


def is_matrix(output: np.ndarray, labels: np.ndarray) -> bool:
    """Say whether an output is ``[N, classes]`` and labels are ``[N]`` classes."""
    return (
        output.ndim == 2
        and output.shape[1] >= 2
        and labels.dtype.kind in "bui"
        and labels.shape == output.shape[:1]
    )


def is_column(output: np.ndarray, labels: np.ndarray) -> bool:
    """Say whether an output has one value for each of the labels ``[N]``."""
    rows = len(output) if output.ndim else 0
    return output.shape in {(rows,), (rows, 1)} and labels.shape == (rows,)


def is_map(output: np.ndarray, labels: np.ndarray) -> bool:
    """Say whether an output is ``[N, classes, ...]`` and labels are classes ``[N, ...]``."""
    return (
        output.ndim > 2
        and output.shape[1] >= 2
        and labels.dtype.kind in "bui"
        and labels.shape == (output.shape[0], *output.shape[2:])
    )


def measure_output(
    name: str, output: np.ndarray, labels: np.ndarray, *, is_places: bool = False
) -> Measure:
    """Measure a metric on an output that goes with it, see `goes_with`.

    Args:
        name: One of `edgesdk.data.judging.METRICS` that looks at one output.
        output: Rows first.
        labels: One entry per row.
        is_places: It is the places of the largest values, best first.

    Raises:
        DataError: A label is no class.
    """
    if is_places:
        wanted = MANY_CLASSES if name == "top5" else 1
        right = (output[:, :wanted] == labels[:, None]).any(axis=1)
        return HitMeasure(f"top-{wanted}", right)
    if name == "auc":
        return measure_auc(output, labels)
    if name in ("mae", "rmse"):
        return _errors(name, output, labels)
    return _pixels(output, labels) if name == "pixel-top1" else _hits(name, output, labels)


def goes_with(name: str, output: np.ndarray, labels: np.ndarray, *, is_places: bool) -> bool:
    """Say whether a metric can be measured on an output."""
    if is_places:
        wanted = {"top1": 1, "top5": MANY_CLASSES}.get(name, output.shape[1] + 1)
        return labels.shape == output.shape[:1] and output.shape[1] >= wanted
    is_choice = is_column(output, labels) and labels.dtype.kind in "bui"
    if name in ("top1", "auc"):
        return is_choice or is_matrix(output, labels)
    if name == "top5":
        return is_matrix(output, labels)
    if name == "pixel-top1":
        return is_map(output, labels)
    rows = len(output) if output.ndim else 0
    if not rows or not labels.ndim or len(labels) != rows:
        return False
    return output.reshape(rows, -1).shape == labels.reshape(rows, -1).shape


def _pixels(output: np.ndarray, labels: np.ndarray) -> Measure:
    check_labels(labels, output.shape[1], "pixel-top1")
    right = output.argmax(axis=1) == labels
    # neighbours in a picture are not independent, so whole pictures are drawn
    return _mean("pixel-top-1", "larger", right.reshape(len(right), -1).mean(axis=1))


def _errors(name: str, output: np.ndarray, labels: np.ndarray) -> Measure:
    import numpy as np

    rows = len(output)
    error = np.abs(output.reshape(rows, -1).astype(np.float64) - labels.reshape(rows, -1))
    if name == "mae":
        return _mean("mean-abs-error", "smaller", error.mean(axis=1))
    return _mean("root-mean-square-error", "smaller", (error**2).mean(axis=1), root=True)


def _mean(
    name: str, better: Literal["larger", "smaller"], each: np.ndarray, *, root: bool = False
) -> ResampledMeasure:
    count = len(each)

    def statistic(weights: np.ndarray) -> float:
        value = float(weights @ each) / count
        return math.sqrt(value) if root else value

    return ResampledMeasure(name, better, statistic, count)


def check_labels(labels: np.ndarray, classes: int, metric: str) -> None:
    """Refuse labels that are no classes of an output.

    Raises:
        DataError: One is below 0, or not below ``classes``.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"cannot measure {metric}: labels go from {low} to {high} and the output has "
            f"{classes} classes",
            hint="labels count from 0"
            if high == classes and low == 1
            else "are these the labels of this model?",
            low=low,
            high=high,
            classes=classes,
        )


def _hits(name: str, output: np.ndarray, labels: np.ndarray) -> Measure:
    if is_matrix(output, labels):
        check_labels(labels, output.shape[1], name)
        if name == "top1":
            return HitMeasure("top-1", output.argmax(axis=1) == labels)
        return _top5(output, labels)
    values = output.reshape(len(output))
    if values.dtype.kind in "iu":  # a classifier that gives the class itself
        return HitMeasure("top-1", values == labels)
    check_labels(labels, 2, name)
    middle = 0.5 if values.min() >= 0 and values.max() <= 1 else 0.0
    return HitMeasure(
        "binary", (values > middle) == labels.astype(bool), note=f"above {middle:g} is 1"
    )


def _top5(output: np.ndarray, labels: np.ndarray) -> Measure:
    import numpy as np

    rows, classes = output.shape
    if classes < MANY_CLASSES:
        raise DataError(
            f"cannot measure top5: the output has {classes} classes",
            hint="measure top1",
            classes=classes,
        )
    # those that come before the label: larger, or as large and in front of it
    ours = output[np.arange(rows), labels.astype(np.int64)][:, None]
    in_front = np.arange(classes)[None, :] < labels[:, None]
    before = (output > ours) | ((output == ours) & in_front)
    return HitMeasure("top-5", before.sum(axis=1) < MANY_CLASSES)
