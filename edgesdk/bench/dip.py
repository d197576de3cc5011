"""Hartigan's dip: how far samples are from having one mode only. Pure.

The dip is the least largest distance between the samples' distribution function and any with
one mode (convex before it, concave after). The uniform distribution is the one with one mode
that has the largest dips, so quantiles of its dips bound the rate of false alarms for every
other, heavy tails included.

Source: Hartigan and Hartigan 1985, The Dip Test of Unimodality, Annals of Statistics 13;
Hartigan 1985, Algorithm AS 217. The quantiles in `DIP_LIMITS` are from 20,000 sets of uniform
samples of each size; a test draws some anew.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["DIP_LIMITS", "dip", "dip_limit", "spread_ties"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

#: Number of samples, and the 99 % quantile of the root of that number times the dip.
DIP_LIMITS: tuple[tuple[int, float], ...] = (
    (10, 0.504),
    (20, 0.539),
    (50, 0.570),
    (100, 0.589),
    (200, 0.601),
    (500, 0.619),
    (1000, 0.624),
    (2000, 0.626),
)


def dip(values: Floats) -> float:
    """Give the dip of samples: from 1 / 2n to 1/4. Equal samples should be spread before."""
    x = np.sort(np.asarray(values, dtype=float))
    count = len(x)
    if count < 2 or x[0] == x[-1]:
        return 0.5 / max(1, count)
    place = np.arange(count, dtype=float)
    low, high = 0, count - 1
    found = 1.0  # in units of 1 / 2n, like all that follows
    while True:
        convex = _hull(x, low, high, upper=False)
        concave = _hull(x, low, high, upper=True)
        # the function is k before sample k and k + 1 after it
        under = 1.0 + concave - np.interp(x[concave], x[convex], place[convex])
        over = 1.0 + np.interp(x[convex], x[concave], place[concave]) - convex
        if max(under.max(), over.max()) <= found:
            break
        if under.max() >= over.max():
            right = int(concave[np.argmax(under)])
            left = int(convex[convex < right][-1]) if right > low else low
        else:
            left = int(convex[np.argmax(over)])
            right = int(concave[concave > left][0]) if left < high else high
        before, after = np.arange(low, left + 1), np.arange(right, high + 1)
        below = 1.0 + before - np.interp(x[before], x[convex], place[convex])
        above = 1.0 + np.interp(x[after], x[concave], place[concave]) - after
        found = max(found, float(below.max()), float(above.max()))
        if (left, right) == (low, high) or left >= right:
            break
        low, high = left, right
    return found / (2.0 * count)


def _hull(x: Floats, low: int, high: int, *, upper: bool) -> Indices:
    """Give the corners of the greatest convex minorant, or of the least concave majorant."""
    sign = -1.0 if upper else 1.0
    corners: list[int] = []
    for k in range(low, high + 1):
        while len(corners) >= 2:
            i, j = corners[-2], corners[-1]
            if sign * ((x[j] - x[i]) * (k - i) - (j - i) * (x[k] - x[i])) > 0.0:
                break
            corners.pop()
        corners.append(k)
    return np.asarray(corners)


def spread_ties(values: Floats) -> Floats:
    """Spread equal samples over the tick of their clock, so that its ticks are no modes."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) < 2 or counts.max() < 2:
        return np.sort(values)
    tick = float(np.diff(distinct).min())
    first = np.repeat(np.cumsum(counts) - counts, counts)
    inside = (np.arange(len(values)) - first + 0.5) / np.repeat(counts, counts) - 0.5
    return np.asarray(np.repeat(distinct, counts) + tick * inside)


def dip_limit(count: int) -> float:
    """Give what the dip of ``count`` samples with one mode exceeds in 1 % of all cases."""
    sizes = [math.log(size) for size, _ in DIP_LIMITS]
    limits = [limit for _, limit in DIP_LIMITS]
    return float(np.interp(math.log(count), sizes, limits)) / math.sqrt(count)
