"""From pairs of blocks to a ratio with an interval: what two releases differ by. Pure.

Two things blur a ratio, and each has its own remedy. *Within* one start of the workers, load
and clocks come and go: the pair takes its ratio from neighbours in time, the order in the pair
is drawn, so that the sign of what is left is a coin's, and the Hodges-Lehmann estimate (the
median of all means of two) does not follow outliers. Neighbouring ratios may still agree, for
instance while one worker shares its core; their integrated autocorrelation widens the error.
*Between* starts a process keeps what it happened to get: where its memory lies, which core it
is on. No number of blocks averages that, so the workers are started several times, and the
starts are combined as studies are in a random-effects meta-analysis: DerSimonian and Laird's
variance between them, and Knapp and Hartung's error with Student's t, never below what the
blocks alone would give.

Sources: Hodges and Lehmann 1963; Lehmann, Nonparametrics (1975), chapter 4 (the interval,
of which the error is taken); Geyer 1992, Practical Markov Chain Monte Carlo, section 3.3 (the
initial positive sequence); DerSimonian and Laird 1986; Roever, Knapp and Friede 2015 (the
error for few studies, with the factor of at least 1); Holm 1979.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "PairedRatio",
    "autocorrelation_time",
    "average_ranks",
    "combine_starts",
    "hodges_lehmann",
    "holm",
    "p_above",
    "paired_ratio",
]

#: Both tails of the intervals.
_TAIL = 0.025
#: So many Walsh averages are sorted at once; more blocks are first averaged in runs.
_MOST_PAIRS = 600
#: The smallest error of a start: clocks tell ten nanoseconds, not nothing.
_LEAST_ERROR = 1e-5
#: With fewer values Wilcoxon's statistic gives no interval of 95 %.
_FEWEST_FOR_ERROR = 6
#: What single pairs differ by at least, where too few are there to see it.
_LEAST_SPREAD = 0.01
_COVERAGE = 0.95

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedRatio:
    """Ours by theirs, and how far that can be trusted."""

    ratio: float
    lower: float
    upper: float
    coverage: float
    log_error: float
    freedom: float
    #: The standard deviation between starts that is left when the blocks' own is taken off.
    between: float


def hodges_lehmann(values: Sequence[float] | Floats) -> tuple[float, float]:
    """Give the median of all means of two values, and its standard error.

    The error is that of the interval between two such means that Wilcoxon's signed rank
    statistic gives (its normal form), times the root of the values' integrated
    autocorrelation time. With fewer than 6 values there is no such interval, and half the range
    stands in for it: `paired_ratio` knows better.
    """
    data = _at_most(np.asarray(values, dtype=float))
    count = len(data)
    left, right = np.triu_indices(count)
    walsh = np.sort((data[left] + data[right]) / 2.0)
    estimate = float(np.median(walsh))
    if count < _FEWEST_FOR_ERROR:
        return estimate, max(_LEAST_ERROR, float(np.ptp(data)) / 2.0)
    mean = count * (count + 1) / 4.0
    spread = math.sqrt(count * (count + 1) * (2 * count + 1) / 24.0)
    rank = max(0, math.floor(mean - 1.959964 * spread))
    width = float(walsh[-1 - rank] - walsh[rank])
    error = width / (2 * 1.959964) * math.sqrt(autocorrelation_time(data))
    return estimate, max(_LEAST_ERROR, error)


def _at_most(data: Floats) -> Floats:
    """Average neighbours where there are more than can be sorted in pairs."""
    size = -(-len(data) // _MOST_PAIRS)
    if size <= 1:
        return data
    whole = len(data) // size * size
    return np.asarray(np.median(data[:whole].reshape(-1, size), axis=1))


def average_ranks(data: Floats) -> Floats:
    """Give the rank of each value, from 1; equal values share the mean of theirs."""
    _, place, sizes = np.unique(data, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(sizes) - (sizes - 1) / 2.0)[place])


def autocorrelation_time(values: Sequence[float] | Floats) -> float:
    """Give by how much neighbours that agree raise the variance of a mean; 1 where none do.

    Ranks are taken, so that outliers do not hide what the others do, and lags are summed in
    twos until two of them no longer add anything.
    """
    data = np.asarray(values, dtype=float)
    count = len(data)
    if count < 8:
        return 1.0
    ranks = average_ranks(data)
    ranks -= ranks.mean()
    size = 1 << (2 * count - 1).bit_length()
    spectrum = np.fft.rfft(ranks, size)
    sums = np.fft.irfft(spectrum * np.conj(spectrum), size)[:count]
    if sums[0] <= 0.0:
        return 1.0
    rho = sums / sums[0]
    total = -1.0
    for lag in range(0, count // 2 - 1, 2):
        both = float(rho[lag] + rho[lag + 1])
        if both <= 0.0:
            break
        total += 2.0 * both
    return max(1.0, total)


def combine_starts(estimates: Sequence[float], errors: Sequence[float]) -> PairedRatio:
    """Combine the log ratios of several starts.

    Args:
        estimates: The log ratio of each start.
        errors: Its standard error within the start, above 0.
    """
    from scipy.special import stdtrit

    values, within = np.asarray(estimates, dtype=float), np.asarray(errors, dtype=float) ** 2
    count = len(values)
    between = 0.0
    if count > 1:
        fixed = 1.0 / within
        mean = float(np.sum(fixed * values) / np.sum(fixed))
        cochran = float(np.sum(fixed * (values - mean) ** 2))
        scale = float(np.sum(fixed) - np.sum(fixed**2) / np.sum(fixed))
        between = max(0.0, (cochran - (count - 1)) / scale)
    weights = 1.0 / (within + between)
    mean = float(np.sum(weights * values) / np.sum(weights))
    variance = 1.0 / float(np.sum(weights))
    freedom = float(max(1, count - 1))
    if count > 1:
        factor = float(np.sum(weights * (values - mean) ** 2)) / (count - 1)
        variance *= max(1.0, factor)
    error = math.sqrt(variance)
    reach = float(stdtrit(freedom, 1.0 - _TAIL)) * error
    return PairedRatio(
        ratio=math.exp(mean),
        lower=math.exp(mean - reach),
        upper=math.exp(mean + reach),
        coverage=_COVERAGE,
        log_error=error,
        freedom=freedom,
        between=math.sqrt(between),
    )


def paired_ratio(starts: Sequence[Sequence[tuple[float, float]]]) -> PairedRatio:
    """Compare pairs of times, ours and theirs, all above 0, by start of the workers."""
    logs = [np.log([a / b for a, b in pairs]) for pairs in starts if pairs]
    apart = np.concatenate([np.abs(each - np.median(each)) for each in logs])
    # a start of few pairs cannot tell its own spread; what all have in common can
    spread = max(
        _LEAST_SPREAD, 1.4826 * float(np.median(apart[apart > 0.0])) if apart.any() else 0.0
    )
    estimates, errors = [], []
    for each in logs:
        estimate, error = hodges_lehmann(each)
        if len(each) < _FEWEST_FOR_ERROR:
            error = max(error, spread / math.sqrt(len(each)))
        estimates.append(estimate)
        errors.append(error)
    return combine_starts(estimates, errors)


def p_above(ratio: float, bound: float, log_error: float, freedom: float) -> float:
    """Give the one-sided p-value against "the true ratio is at most ``bound``"."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -math.log(ratio / bound) / log_error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for being several, in Holm's steps; the order stays."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted
