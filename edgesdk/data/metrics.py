"""How close outputs are to other outputs, and how good they are against labels.

Numbers are taken in float64 whatever the dtype, and every rate comes with its interval: on a
few hundred samples a difference of one per cent is usually noise, and a report must say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Difference",
    "Score",
    "compare",
    "cosine",
    "has_nan",
    "max_abs_error",
    "score_outputs",
    "sqnr_db",
    "wilson_interval",
]

#: 97.5 % point of the normal distribution.
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good outputs are against labels.

    Attributes:
        metric: ``"top-1"``, ``"pixel-top-1"``, ``"binary"`` (rates, larger is better) or
            ``"mean-abs-error"`` (smaller is better).
        value: The rate from 0 to 1, or the error in the unit of the output.
        low: Lower end of the 95 % interval; None where there is none to state.
        high: Upper end.
        count: How many rows were scored.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    count: int

    def to_json(self) -> dict[str, Any]:
        """Give the score as plain data."""
        return {
            "metric": self.metric,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "count": self.count,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far one output is from a reference.

    Attributes:
        cosine: 1 for the same direction; 1 also where both are all zero.
        max_abs_error: Largest absolute difference.
        sqnr_db: Power of the reference over that of the difference, in dB; None where infinite.
        elements: How many values were compared.
    """

    cosine: float
    max_abs_error: float
    sqnr_db: float | None
    elements: int

    def to_json(self) -> dict[str, Any]:
        """Give the difference as plain data."""
        return {
            "cosine": self.cosine,
            "max_abs_error": self.max_abs_error,
            "sqnr_db": self.sqnr_db,
            "elements": self.elements,
        }


def compare(reference: np.ndarray, other: np.ndarray) -> Difference:
    """Compare two arrays of one shape.

    Raises:
        DataError: The shapes differ.
    """
    ratio = sqnr_db(reference, other)
    return Difference(
        cosine=cosine(reference, other),
        max_abs_error=max_abs_error(reference, other),
        sqnr_db=ratio if math.isfinite(ratio) else None,
        elements=int(reference.size),
    )


def cosine(reference: np.ndarray, other: np.ndarray) -> float:
    """Give the cosine of the angle between two arrays taken as vectors, from -1 to 1.

    Two arrays of zeros count as the same (1), one of zeros and one of anything else as
    unrelated (0). NaN or infinity in either gives NaN.

    Raises:
        DataError: The shapes differ.
    """
    import numpy as np

    one, two = _pair(reference, other)
    # Scaled first, so that squares neither overflow nor vanish.
    tops = [float(np.max(np.abs(each), initial=0.0)) for each in (one, two)]
    if not all(map(math.isfinite, tops)):
        return math.nan
    if 0.0 in tops:
        return 1.0 if tops[0] == tops[1] else 0.0
    one, two = one / tops[0], two / tops[1]
    product = float(one @ two) / math.sqrt(float(one @ one) * float(two @ two))
    return max(-1.0, min(1.0, product))


def max_abs_error(reference: np.ndarray, other: np.ndarray) -> float:
    """Give the largest absolute difference; 0 for empty arrays, NaN if there is one.

    Equal infinities differ by nothing.

    Raises:
        DataError: The shapes differ.
    """
    import numpy as np

    one, two = _pair(reference, other)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.where(one == two, 0.0, np.abs(one - two))
    return float(np.max(error, initial=0.0))


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Give the ratio of signal to quantization noise in dB; infinite if the arrays are equal.

    Raises:
        DataError: The shapes differ.
    """
    import numpy as np

    one, two = _pair(reference, other)
    with np.errstate(over="ignore", invalid="ignore"):
        noise = one - two
        signal_power, noise_power = float(one @ one), float(noise @ noise)
    if math.isnan(noise_power) or math.isnan(signal_power):
        return math.nan
    if noise_power == 0:
        return math.inf
    if signal_power == 0:
        return -math.inf
    return 10.0 * (math.log10(signal_power) - math.log10(noise_power))


def score_outputs(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> tuple[str, Score]:
    """Score the output that goes with the labels; its shape says how.

    ``[N, C]`` with whole labels ``[N]``: top-1. ``[N, C, ...]`` with whole labels ``[N, ...]``:
    top-1 of every place. Whole numbers ``[N]`` or ``[N, 1]`` are the classes themselves: top-1.
    Fractions ``[N]`` or ``[N, 1]`` with labels 0 and 1: a threshold of 0.5 for outputs from 0
    to 1, else of 0. The same shape with fractions as labels: mean absolute error.

    Args:
        outputs: By name, rows first, in the order of the labels.
        labels: One entry per row.

    Returns:
        The name of the output that was scored (the first that fits), and the score.

    Raises:
        DataError: No output goes with the labels, or a label is no class.
    """
    for name, output in outputs.items():
        score = _score(output, labels)
        if score is not None:
            return name, score
    shapes = ", ".join(f"{name!r} {list(output.shape)}" for name, output in outputs.items())
    raise DataError(
        f"cannot score outputs: labels are {labels.dtype}{list(labels.shape)} and the outputs "
        f"are {shapes or 'none'}",
        hint="labels are class numbers [N] for an output [N, classes], or have its shape",
    )


def wilson_interval(hits: int, count: int, *, z: float = _Z95) -> tuple[float, float]:
    """Give the interval of a rate, 95 % unless told otherwise (Wilson 1927, score interval).

    It holds its coverage for small counts and for rates near 0 and 1, where the usual
    plus-or-minus does not.
    """
    if count <= 0:
        return 0.0, 1.0
    rate = hits / count
    spread = z * z / count
    centre = (rate + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(rate * (1 - rate) / count + spread / (4 * count))
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == count else centre + half)


def has_nan(output: np.ndarray) -> bool:
    """Say whether an output holds a value that is not a number."""
    import numpy as np

    return output.dtype.kind == "f" and bool(np.isnan(output).any())


def _score(output: np.ndarray, labels: np.ndarray) -> Score | None:
    import numpy as np

    whole = labels.dtype.kind in "bui"
    rows = output.shape[0] if output.ndim else 0
    if not rows or labels.ndim == 0 or labels.shape[0] != rows:
        return None
    if whole and output.ndim >= 2 and output.shape[1] >= 2:
        places = (output.shape[0], *output.shape[2:])
        if labels.shape == places:
            _check_range(labels, output.shape[1])
            metric = "top-1" if output.ndim == 2 else "pixel-top-1"
            return _rate(metric, output.argmax(axis=1) == labels, rows)
    if whole and output.shape in {(rows,), (rows, 1)} and labels.shape == (rows,):
        if output.dtype.kind in "iu":  # a classifier that gives the class itself
            return _rate("top-1", output.reshape(rows) == labels, rows)
        _check_range(labels, 2)
        values = output.reshape(rows)
        middle = 0.5 if values.min() >= 0 and values.max() <= 1 else 0.0
        return _rate("binary", (values > middle) == labels.astype(bool), rows)
    if output.reshape(rows, -1).shape == labels.reshape(rows, -1).shape:
        error = np.abs(output.astype(np.float64).ravel() - labels.astype(np.float64).ravel())
        return Score(
            metric="mean-abs-error", value=float(error.mean()), low=None, high=None, count=rows
        )
    return None


def _rate(metric: str, right: np.ndarray, rows: int) -> Score:
    import numpy as np

    value = float(np.mean(right))
    # Neighbouring places of one picture are not independent, so no interval is stated for them.
    low, high = wilson_interval(int(right.sum()), rows) if right.ndim == 1 else (None, None)
    return Score(metric=metric, value=value, low=low, high=high, count=rows)


def _check_range(labels: np.ndarray, classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"cannot score outputs: labels go from {low} to {high} and the output has "
            f"{classes} classes",
            hint="labels count from 0"
            if high == classes and low == 1
            else "are these the labels of this model?",
            low=low,
            high=high,
            classes=classes,
        )


def _pair(reference: np.ndarray, other: np.ndarray) -> Sequence[np.ndarray]:
    import numpy as np

    if reference.shape != other.shape:
        raise DataError(
            f"cannot compare outputs: one is {list(reference.shape)} and the other "
            f"{list(other.shape)}"
        )
    return [each.astype(np.float64).ravel() for each in (reference, other)]
