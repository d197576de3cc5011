"""Percentiles with honest uncertainty: no distribution assumed, none printed too early.

A percentile p of n samples is given only where its distribution-free 95 % interval between
two order statistics exists. The convention is the equal-tailed one: the interval may miss on
either side with a probability of at most 2.5 %. With B the number of samples below the true
quantile, B is binomial (n, p), and the ends are the largest l with P(B < l) <= 0.025 and the
smallest u with P(B >= u) <= 0.025. Both exist from the smallest n on with
max(p, 1 - p) ** n <= 0.025: 6 samples for p50, 36 for p90, 368 for p99. (Sharing the 5 %
freely between the tails would let p99 through from 299 samples on, with an interval whose
upper end alone misses in all of the 5 %.)

Source: Hahn and Meeker, Statistical Intervals (1991), section 5.2, and David and Nagaraja,
Order Statistics (2003), section 7.1. The coverage is exact for continuous distributions and a
lower bound where samples tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgesdk.bench.values import PERCENTILES, Interval, Latency, PercentileName, Ratio

__all__ = [
    "make_latency",
    "make_ratio",
    "order_statistic_ranks",
    "percentile",
    "quantile",
    "samples_needed",
    "throughput_per_s",
]

#: Probability with which the interval may miss on one side.
TAIL = 0.025
# Beyond this many standard deviations a binomial tail is far below the last bit of a float.
_FAR_SIGMAS = 12


def samples_needed(p: float) -> int:
    """Count the samples that quantile ``p`` needs for its equal-tailed 95 % interval."""
    likelier = max(p, 1.0 - p)
    count = max(1, math.ceil(math.log(TAIL) / math.log(likelier)))
    while likelier**count > TAIL:
        count += 1
    while count > 1 and likelier ** (count - 1) <= TAIL:
        count -= 1
    return count


def _log_pmf(k: int, n: int, p: float) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(p) + (n - k) * math.log1p(-p)


def order_statistic_ranks(n: int, p: float) -> tuple[int, int, float] | None:
    """Find the ranks (from 1) of the samples that enclose quantile ``p``, and their coverage.

    Returns:
        ``(lower, upper, coverage)``, or None where ``n`` samples are too few.
    """
    if n < samples_needed(p):
        return None
    reach = _FAR_SIGMAS * math.sqrt(n * p * (1 - p)) + 5
    first, last = max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach))
    pmf = math.exp(_log_pmf(first, n, p))
    masses = []
    for k in range(first, last + 1):
        masses.append(pmf)
        pmf *= (n - k) / (k + 1) * p / (1 - p)
    below = 0.0  # P(B < lower)
    lower = first
    while below + masses[lower - first] <= TAIL:
        below += masses[lower - first]
        lower += 1
    above = 0.0  # P(B >= upper)
    upper = last + 1
    while above + masses[upper - 1 - first] <= TAIL:
        above += masses[upper - 1 - first]
        upper -= 1
    return lower, upper, min(1.0, 1.0 - below - above)


def quantile(ordered: Sequence[float], p: float) -> float:
    """Interpolate quantile ``p`` of ascending samples (Hyndman and Fan 1996, type 7)."""
    place = (len(ordered) - 1) * p
    left = math.floor(place)
    right = min(left + 1, len(ordered) - 1)
    return ordered[left] + (ordered[right] - ordered[left]) * (place - left)


def percentile(samples: Sequence[float], p: float) -> float | None:
    """Give quantile ``p`` of samples; None where they are too few for an interval of it."""
    if order_statistic_ranks(len(samples), p) is None:
        return None
    return quantile(sorted(samples), p)


def throughput_per_s(samples_ms: Sequence[float]) -> float | None:
    """Divide the number of runs by their summed time: one stream, nothing overlaps."""
    total_s = math.fsum(samples_ms) / 1000
    return len(samples_ms) / total_s if total_s > 0 else None


def make_latency(samples_ms: Sequence[float]) -> Latency:
    """Describe samples in the order in which they were measured."""
    ordered = sorted(samples_ms)
    count = len(ordered)
    values: dict[PercentileName, float | None] = {}
    why: dict[PercentileName, str] = {}
    intervals: dict[PercentileName, Interval] = {}
    for name, p in PERCENTILES:
        ranks = order_statistic_ranks(count, p)
        if ranks is None:
            values[name] = None
            why[name] = f"needs {samples_needed(p)} samples, has {count}"
            continue
        lower, upper, coverage = ranks
        values[name] = quantile(ordered, p)
        intervals[name] = Interval(
            lower_ms=ordered[lower - 1], upper_ms=ordered[upper - 1], coverage=coverage
        )
    return Latency(
        samples_ms=tuple(samples_ms),
        min_ms=ordered[0] if ordered else None,
        max_ms=ordered[-1] if ordered else None,
        mean_ms=math.fsum(ordered) / count if ordered else None,
        p50_ms=values["p50_ms"],
        p90_ms=values["p90_ms"],
        p99_ms=values["p99_ms"],
        why=why,
        intervals=intervals,
    )


def make_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Say how many times as long ours take as theirs, measured in pairs.

    What disturbs a pair disturbs both, so each pair gives one ratio. The median of the ratios
    has an interval between two of them: with 6 pairs it is from the least to the greatest.

    Args:
        ours: A time of each pair, above 0.
        theirs: The other time of each pair, in the same order, above 0.
    """
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    ranks = order_statistic_ranks(len(ratios), 0.5)
    return Ratio(
        value=quantile(ratios, 0.5),
        lower=None if ranks is None else ratios[ranks[0] - 1],
        upper=None if ranks is None else ratios[ranks[1] - 1],
        coverage=None if ranks is None else ranks[2],
        rounds=len(ratios),
    )
