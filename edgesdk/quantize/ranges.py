"""Choose the range that a scale should cover, from a sample of a tensor's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from edgesdk.quantize.grid import Grid

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "RANGE_METHODS",
    "RangeMethod",
    "histogram",
    "least_entropy",
    "least_squared_error",
    "percentile",
]

RangeMethod = Literal["min-max", "moving-average", "percentile", "mse", "entropy"]
RANGE_METHODS: tuple[RangeMethod, ...] = (
    "min-max",
    "moving-average",
    "percentile",
    "mse",
    "entropy",
)

#: Share of the sampled numbers that `percentile` leaves beyond each end.
_TAIL = 1e-4
_BINS = 2048
#: Of fewer numbers a histogram is mostly holes, whose entropy says nothing.
_ENTROPY_PER_BIN = 4
#: How far `mse` and `entropy` shrink a range, and in how many steps.
_SHRINK_TO, _SHRINK_STEPS = 0.2, 48


def percentile(rows: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Leave a ten-thousandth of the numbers beyond each end."""
    import numpy as np

    ends = np.quantile(rows, (_TAIL, 1 - _TAIL))
    return max(low, float(ends[0])), min(high, float(ends[1]))


def histogram(
    rows: np.ndarray, low: float, high: float, level: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count the sampled numbers in even bins over the whole range.

    Its ends are known to have been there once, whether they were sampled or not.
    """
    import numpy as np

    counts, edges = np.histogram(rows, bins=_BINS, range=(low, high))
    counts = counts.astype(np.float64)
    if level:
        counts[[0, -1]] = np.maximum(counts[[0, -1]], 0.5**level)
    return counts, edges


def _ranges(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Give candidate ranges: shrunk at the far end first, at both ends alike as well."""
    import numpy as np

    factors = np.linspace(1.0, _SHRINK_TO, _SHRINK_STEPS)
    low, high = min(low, 0.0), max(high, 0.0)
    if low == 0.0 or high == 0.0:
        return low * factors, high * factors
    reach = factors * max(-low, high)
    lows = [low * factors, np.maximum(low, -reach)]
    highs = [high * factors, np.minimum(high, reach)]
    return np.concatenate(lows), np.concatenate(highs)


def least_squared_error(
    counts: np.ndarray, edges: np.ndarray, grid: Grid
) -> tuple[float, float]:
    """Find the range whose grid loses the least squared error over the histogram."""
    import numpy as np

    middles = (edges[:-1] + edges[1:]) / 2
    used = counts > 0
    middles, weights = middles[used], counts[used]
    lows, highs = _ranges(float(edges[0]), float(edges[-1]))
    if grid.symmetric:
        reach = np.maximum(-lows, highs)
        lows, highs, steps = -reach, reach, 2.0 * grid.high
    else:
        steps = float(grid.steps)
    scales = np.maximum((highs - lows) / steps, np.finfo(np.float32).tiny)
    # beyond the ends the error is the distance, within them a uniform part of a step
    beyond = np.maximum(middles - highs[:, None], 0) + np.maximum(lows[:, None] - middles, 0)
    inside = (beyond == 0).astype(np.float64) @ weights
    errors = (beyond**2) @ weights + inside * scales**2 / 12
    best = int(errors.argmin())
    return float(lows[best]), float(highs[best])


def least_entropy(counts: np.ndarray, edges: np.ndarray, grid: Grid) -> tuple[float, float]:
    """Find the range whose grid keeps the most of the distribution, by relative entropy.

    After Migacz, 8-bit inference with TensorRT, GTC 2017: what lies beyond a range is added to
    its last bin, and the distribution is compared with itself on a grid of 128 levels.
    """
    import numpy as np

    levels = min(128, grid.steps)
    middles = (edges[:-1] + edges[1:]) / 2
    counts = counts.copy()
    # zero has a level of its own on every grid: its bin, which rectifiers fill, says nothing
    counts[np.abs(middles).argmin()] = 0.0
    if counts.sum() < _ENTROPY_PER_BIN * len(counts):
        return float(edges[0]), float(edges[-1])
    lows, highs = _ranges(float(edges[0]), float(edges[-1]))
    best, least = (float(edges[0]), float(edges[-1])), np.inf
    for low, high in zip(lows, highs, strict=True):
        inside = (middles >= low) & (middles <= high)
        first, last = int(inside.argmax()), len(inside) - int(inside[::-1].argmax())
        if last - first < levels or not counts[inside].any():
            continue
        part = counts[first:last]
        whole = part.copy()
        whole[0] += counts[:first].sum()
        whole[-1] += counts[last:].sum()
        cells = (np.arange(len(part)) * levels) // len(part)
        sums = np.bincount(cells, part, levels)
        filled = np.bincount(cells, (part > 0).astype(np.float64), levels)
        coarse = np.where(part > 0, (sums / np.maximum(filled, 1))[cells], 0.0)
        both = (whole > 0) & (coarse > 0)
        p, q = whole / whole.sum(), coarse / coarse.sum()
        lost = float(p[(whole > 0) & ~both].sum())
        entropy = float((p[both] * np.log(p[both] / q[both])).sum()) + 20.0 * lost
        if entropy < least:
            best, least = (float(low), float(high)), entropy
    return best
