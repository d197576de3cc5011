"""The ratio of two medians that were measured one after the other, with an interval. Pure.

Each median has its distribution-free interval between two order statistics, for as many samples
as the series is worth: neighbouring samples that agree count as fewer. The two intervals are
combined on the logarithm by Zou and Donner's method of variance estimates recovery, which keeps
them as lopsided as they are. What differs from one start of a worker to the next is in neither
series, so an interval that leaves a limit out raises a suspicion; `edgesdk.bench.compare`,
which starts workers several times, decides.

Source: Zou and Donner, Construction of confidence limits about effect measures (2008); Geyer,
Practical Markov chain Monte Carlo (1992), for the initial positive sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgesdk.bench.statistics import order_statistic_ranks, quantile, samples_needed
from edgesdk.errors import InputError

__all__ = ["MedianRatio", "effective_samples", "ratio_of_medians"]

_COVERAGE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianRatio:
    """Ours by theirs; ``effective`` are the samples that each series is worth, ours first."""

    value: float
    lower: float
    upper: float
    coverage: float
    effective: tuple[int, int]


def ratio_of_medians(ours: Sequence[float], theirs: Sequence[float]) -> MedianRatio:
    """Say how many times as long the median of ours is as that of theirs.

    Args:
        ours: Times in the order in which they were measured.
        theirs: The others; there may be more or fewer of them.

    Raises:
        InputError: A series is too short for an interval, or its median is zero.
    """
    (a, a_low, a_high, a_worth), (b, b_low, b_high, b_worth) = _median(ours), _median(theirs)
    middle = a - b
    down = math.hypot(a - a_low, b_high - b)
    up = math.hypot(a_high - a, b - b_low)
    return MedianRatio(
        value=math.exp(middle),
        lower=math.exp(middle - down),
        upper=math.exp(middle + up),
        coverage=_COVERAGE,
        effective=(a_worth, b_worth),
    )


def effective_samples(samples: Sequence[float]) -> int:
    """Count the independent samples that would tell the median as well as these do.

    It is the count divided by the integrated autocorrelation time of the signs: whether a
    sample is above or below the median is all that an order statistic knows of it.
    """
    data = np.asarray(samples, dtype=float)
    count = len(data)
    signs = np.sign(data - np.median(data))
    signs -= signs.mean()
    size = 1 << (2 * count - 1).bit_length()
    spectrum = np.fft.rfft(signs, size)
    sums = np.fft.irfft(spectrum * np.conj(spectrum), size)[:count]
    if sums[0] <= 0.0:  # all are the same
        return count
    total = -1.0
    for lag in range(0, count // 2 - 1, 2):
        both = float(sums[lag] + sums[lag + 1]) / float(sums[0])
        if both <= 0.0:
            break
        total += 2.0 * both
    return max(1, min(count, math.floor(count / max(1.0, total))))


def _median(samples: Sequence[float]) -> tuple[float, float, float, int]:
    """Give the logarithms of the median and the ends of its interval, and what it rests on."""
    fewest = samples_needed(0.5)
    if len(samples) < fewest:
        raise InputError(
            f"cannot compare medians: one of them rests on {len(samples)} samples (expected at "
            f"least {fewest})",
            hint="measure longer: --runs or --duration",
            samples=len(samples),
        )
    ordered = sorted(samples)
    count = len(ordered)
    worth = max(fewest, effective_samples(samples))
    ranks = order_statistic_ranks(worth, 0.5)
    assert ranks is not None
    # the ranks of as many independent samples, as places among all of them
    lower = ordered[math.floor((ranks[0] - 1) * count / worth)]
    upper = ordered[min(count - 1, math.ceil(ranks[1] * count / worth) - 1)]
    middle = quantile(ordered, 0.5)
    if min(lower, middle) <= 0.0:
        raise InputError(
            "cannot compare medians: one of them is zero",
            hint="the clock of that device is too coarse for this model: measure batches",
        )
    return math.log(middle), math.log(lower), math.log(upper), worth
