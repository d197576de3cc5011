"""The area under the ROC curve, with what each row adds to it.

The variance is that of DeLong, DeLong and Clarke-Pearson (1988), by midranks as Sun and Xu
(2014) find it in n log n. For several classes it is the plain mean over "this class or any
other", whose rows add up their influence over the classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.data.measures import InfluenceMeasure
from edgesdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["auc_of_rows", "measure_auc"]

_METHOD = "DeLong"
_SUM_TOLERANCE = 0.02


def _midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equals share the middle of theirs."""
    import numpy as np

    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middles: np.ndarray = (ends - (counts - 1) / 2.0)[places]
    return middles


def auc_of_rows(scores: np.ndarray, positive: np.ndarray) -> tuple[float, np.ndarray]:
    """Give the area for one class, and what each row adds.

    Args:
        scores: ``[N]``, larger for rows that are more likely of the class.
        positive: ``[N]``, which rows are; there are some, and some are not.

    Returns:
        The area, and ``[N]`` values whose squares add up to DeLong's variance.
    """
    import numpy as np

    ours, others = int(positive.sum()), int((~positive).sum())
    ranks = _midranks(scores)
    # how much of the others each positive row is above, and how much of the positive rows
    # each of the others is below
    above = (ranks[positive] - _midranks(scores[positive])) / others
    below = 1.0 - (ranks[~positive] - _midranks(scores[~positive])) / ours
    area = float(above.mean())
    influence = np.zeros(len(scores))
    influence[positive] = (above - area) / np.sqrt(ours * max(1, ours - 1))
    influence[~positive] = (below - area) / np.sqrt(others * max(1, others - 1))
    return area, influence


def measure_auc(output: np.ndarray, labels: np.ndarray) -> InfluenceMeasure:
    """Measure the area under the ROC curve.

    Args:
        output: ``[N]`` or ``[N, 1]`` scores, or ``[N, classes]``. Two columns are one score,
            their difference; of more, rows that are no probabilities become some (softmax).
        labels: ``[N]`` class numbers; 0 and 1 where there is one score.

    Raises:
        DataError: The labels are of one class only, or no classes of this output.
    """
    import numpy as np

    rows = len(labels)
    values = output.reshape(rows, -1).astype(np.float64)
    classes = values.shape[1]
    if classes <= 2:
        _check_classes(labels, 2)
        scores = values[:, 0] if classes == 1 else values[:, 1] - values[:, 0]
        positive = labels.astype(np.int64) == 1
        if not positive.any() or positive.all():
            raise _one_class(labels)
        area, influence = auc_of_rows(scores, positive)
        return InfluenceMeasure(
            "auc", area, influence, method=_METHOD, unsure=_why_unsure(labels)
        )
    _check_classes(labels, classes)
    note = ""
    sums = values.sum(axis=1)
    if values.min() < 0 or values.max() > 1 or np.abs(sums - 1).max() > _SUM_TOLERANCE:
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
        note = "of softmax of the output"
    seen = np.unique(labels)
    if len(seen) < 2:
        raise _one_class(labels)
    if len(seen) < classes:
        note = "; ".join(filter(None, [note, f"over the {len(seen)} classes that occur"]))
    found = [auc_of_rows(values[:, each], labels == each) for each in seen.tolist()]
    return InfluenceMeasure(
        "auc-macro",
        float(np.mean([area for area, _ in found])),
        np.mean([influence for _, influence in found], axis=0),
        method=_METHOD,
        note=note,
        unsure=_why_unsure(labels),
    )


def _why_unsure(labels: np.ndarray) -> str:
    """Say which labels support no interval: a single row does not show how its class varies."""
    import numpy as np

    fewest = int(np.unique(labels, return_counts=True)[1].min())
    return "a class has one row only" if fewest < 2 else ""


def _one_class(labels: np.ndarray) -> DataError:
    return DataError(
        f"cannot measure the AUC: all {len(labels)} labels are {labels.flat[0]}",
        hint="it needs rows of two classes at least",
    )


def _check_classes(labels: np.ndarray, classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"cannot measure the AUC: labels go from {low} to {high} and the output has "
            f"{classes} classes",
            hint="labels count from 0: are these the labels of this model?",
        )
