"""What samples show besides their percentiles: drift, modes, warm-up, outliers, memory. Pure.

Every finding needs two things: it is significant (each test is made to err in 1 % of clean
measurements, heavy tails and spikes included), and it is large enough to matter. All tests
use ranks or medians, so that a few interrupted runs decide nothing, and all take into account
that neighbouring samples agree.

* Correlation: the integrated autocorrelation time of the ranks (Geyer 1992), of what a trend
  leaves; the samples count as so many fewer.
* Drift: Mann and Kendall's test on medians of batches, each five times as long as that, as
  neighbours that agree would raise the rate of alarms (Von Storch 1995); the size is Theil and
  Sen's slope.
* Warm-up: the first runs against the rest by Mann and Whitney's test, for beginnings of
  several lengths with Bonferroni's correction.
* Modes: Hartigan's dip test, see `edgesdk.bench.dip`; the modes are the halves of the best
  split in two (Otsu 1979), and must lie apart.
* Outliers: more than 6 robust standard deviations (1.4826 times the median absolute
  deviation) above the median, of the logarithms: Leys et al. 2013 with a wider limit, as
  latencies have long tails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgesdk.bench.dip import dip, dip_limit, spread_ties
from edgesdk.bench.pairs import autocorrelation_time, average_ranks
from edgesdk.bench.trust_values import Outliers

__all__ = ["Diagnosis", "Modes", "diagnose", "find_outliers"]

Floats = npt.NDArray[np.float64]

#: Each test errs in at most this share of clean measurements.
LEVEL = 0.01
#: Smaller changes of the median are not worth a word.
MATTERS = 0.02
_FEWEST = 20
#: So many samples are looked at; of more, each that many in order counts by its batch.
_MOST = 1 << 16
_BATCHES = 40
_FEWEST_BATCHES = 8
_SIGMAS = 6.0
#: A clock is read no better than this, relative to a run: below it all runs are equal.
_LEAST_SPREAD = 0.005
#: Modes are apart by this share, and by so many robust standard deviations of each.
_APART = 0.04
_APART_SIGMAS = 3.0
_SMALLER_MODE = 0.05
#: The slowest of all are interruptions, and do not say where a mode is.
_SPIKES = 0.04
_DIP_SAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """Two places where samples gather, and the share of the slower one."""

    fast_ms: float
    slow_ms: float
    slow_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found in samples in the order in which they were measured."""

    count: int
    correlation: float
    """Integrated autocorrelation time, in samples; 1 where each tells something of its own."""
    warmup_left: int
    warmup_share: float
    """By what share the first runs are slower (above 0) or faster than the rest."""
    drift: float | None
    drift_p: float | None
    modes: Modes | None
    outliers: Outliers | None

    @property
    def effective_samples(self) -> float:
        """How many independent samples would tell as much."""
        return self.count / self.correlation


def diagnose(samples_ms: Sequence[float]) -> Diagnosis:
    """Look at samples in the order in which they were measured; fewer than 20 tell nothing."""
    data = np.asarray(samples_ms, dtype=float)
    count = len(data)
    outliers = find_outliers(data)
    if count < _FEWEST or float(np.median(data)) <= 0.0:
        return Diagnosis(
            count=count,
            correlation=1.0,
            warmup_left=0,
            warmup_share=0.0,
            drift=None,
            drift_p=None,
            modes=None,
            outliers=outliers,
        )
    size = -(-count // _MOST)
    thin = data if size == 1 else _batch_medians(data, size)
    warm, warm_share = _find_warmup(thin)
    drift, p_value = _find_drift(thin)
    if drift is not None and warm:
        # a slope makes the first runs differ, and slow first runs make a slope: which is it?
        if _is_line(thin, warm):
            warm, warm_share = 0, 0.0
        else:
            drift, p_value = _find_drift(thin[warm:])
    rest = thin[warm:]
    correlation = autocorrelation_time(_detrended(rest))
    return Diagnosis(
        count=count,
        correlation=min(float(count), correlation * size if correlation > 1.0 else 1.0),
        warmup_left=warm * size,
        warmup_share=warm_share,
        drift=drift,
        drift_p=p_value,
        modes=None if drift is not None else _find_modes(rest, correlation),
        outliers=outliers,
    )


def _batch_medians(data: Floats, size: int) -> Floats:
    whole = len(data) // size * size
    return np.asarray(np.median(data[:whole].reshape(-1, size), axis=1))


def _robust_sigma(values: Floats) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def find_outliers(data: Floats) -> Outliers | None:
    """Name the runs far above the others; None where there are none."""
    if len(data) < _FEWEST or data.min() <= 0.0:
        return None
    logs = np.log(data)
    spread = max(_LEAST_SPREAD, _robust_sigma(logs))
    limit = math.exp(float(np.median(logs)) + _SIGMAS * spread)
    far = data[data > limit]
    if not len(far):
        return None
    return Outliers(
        count=len(far),
        share=len(far) / len(data),
        time_share=min(1.0, float(far.sum() / data.sum())),
        above_ms=limit,
    )


# -- warm-up -----------------------------------------------------------------------------------


def _find_warmup(data: Floats) -> tuple[int, float]:
    """Say how many runs at the beginning differ from the rest, and by what share."""
    count = len(data)
    tail = data[count // 2 :]
    inflation = math.sqrt(autocorrelation_time(_detrended(tail)))
    lengths = sorted({n for k in range(12) if 5 <= (n := count * 2**k // 4096) <= count // 3})
    lengths = sorted({5, *lengths}) if count >= 3 * _FEWEST else lengths
    found = (0, 0.0)
    if not lengths:
        return found
    ranks = average_ranks(data)
    limit = -NormalDist().inv_cdf(LEVEL / 2 / len(lengths))
    best = limit
    for length in lengths:
        rest = count - length
        total = float(ranks[:length].sum())
        mean = length * (count + 1) / 2.0
        spread = math.sqrt(length * rest * (count + 1) / 12.0) * inflation
        score = abs(total - mean) / spread
        if score <= best:
            continue
        others = float(np.median(data[length:]))
        if others <= 0.0:  # too short for the device's clock: there is no share of nothing
            continue
        share = float(np.median(data[:length])) / others - 1.0
        if abs(share) < MATTERS:
            continue
        best, found = score, (length, share)
    return found


# -- drift -------------------------------------------------------------------------------------


def _theil_sen(values: Floats) -> float:
    left, right = np.triu_indices(len(values), 1)
    return float(np.median((values[right] - values[left]) / (right - left)))


def _detrended(data: Floats) -> Floats:
    """Take the line off that goes through the medians of batches."""
    size = max(1, len(data) // _BATCHES)
    batches = _batch_medians(data, size)
    if len(batches) < _FEWEST_BATCHES:
        return data
    return np.asarray(data - _theil_sen(batches) / size * np.arange(len(data)))


def _trend_p(values: Floats) -> float:
    """Give Mann and Kendall's two-sided p-value, in its normal form with ties."""
    count = len(values)
    left, right = np.triu_indices(count, 1)
    score = float(np.sign(values[right] - values[left]).sum())
    _, ties = np.unique(values, return_counts=True)
    sizes = np.concatenate([[float(count)], -ties.astype(float)])
    variance = float(np.sum(sizes * (np.abs(sizes) - 1.0) * (2.0 * np.abs(sizes) + 5.0))) / 18.0
    if variance <= 0.0:
        return 1.0
    return 2.0 * NormalDist().cdf(-max(0.0, abs(score) - 1.0) / math.sqrt(variance))


def _find_drift(data: Floats) -> tuple[float | None, float | None]:
    """Give the change from first to last by the median, and its p-value; None where none."""
    flat = autocorrelation_time(_detrended(data))
    size = max(-(-len(data) // _BATCHES), math.ceil(5.0 * flat) if flat > 1.5 else 1)
    batches = _batch_medians(data, size)
    middle = float(np.median(data))
    if len(batches) < _FEWEST_BATCHES or middle <= 0.0:
        return None, None
    p_value = _trend_p(batches)
    change = _theil_sen(batches) * (len(batches) - 1) / middle
    if not p_value <= LEVEL or abs(change) < MATTERS:
        return None, None
    return change, p_value


def _is_line(data: Floats, first: int) -> bool:
    """Say whether a line fits better than two levels, of the first runs and of the rest."""
    line = _detrended(data)
    line = np.abs(line - np.median(line))
    left, right = data[:first], data[first:]
    steps = np.abs(np.concatenate([left - np.median(left), right - np.median(right)]))
    # the outliers are the same either way, and must not be what decides
    limit = float(np.quantile(steps, 0.9))
    return float(np.minimum(line, limit).sum()) < float(np.minimum(steps, limit).sum())


# -- modes -------------------------------------------------------------------------------------


def _find_modes(data: Floats, correlation: float) -> Modes | None:
    """Find two places where samples gather, if one mode does not explain them."""
    positive = data[data > 0.0]
    if len(positive) < _FEWEST:
        return None
    kept = _thinned(spread_ties(positive), correlation)
    if len(kept) < _FEWEST or dip(kept) <= dip_limit(len(kept)):
        return None
    # the best split in two: where the variance between both sides is largest
    logs = np.log(np.sort(positive))
    count = len(logs)
    tops = np.minimum(logs, np.quantile(logs, 1.0 - _SPIKES))
    edge = max(1, math.ceil(_SMALLER_MODE * count))
    sizes = np.arange(1, count)
    sums = np.cumsum(tops)[:-1]
    means, others = sums / sizes, (tops.sum() - sums) / (count - sizes)
    between = sizes * (count - sizes) * (means - others) ** 2
    between[: edge - 1] = between[count - edge :] = -1.0
    cut = int(np.argmax(between)) + 1
    low, high = logs[:cut], logs[cut:]
    gap = float(np.median(high) - np.median(low))
    inside = max(_robust_sigma(low), _robust_sigma(high))
    if gap < max(_APART, _APART_SIGMAS * inside):
        return None
    return Modes(
        fast_ms=math.exp(float(np.median(low))),
        slow_ms=math.exp(float(np.median(high))),
        slow_share=len(high) / count,
    )


def _thinned(ordered: Floats, correlation: float) -> Floats:
    """Keep as many order statistics as there are independent samples, evenly spaced.

    Thinning order statistics keeps the shape and only makes the test less sure.
    """
    wanted = min(_DIP_SAMPLES, int(len(ordered) / correlation))
    if wanted >= len(ordered):
        return ordered
    picked = (np.arange(wanted) + 0.5) * len(ordered) / max(1, wanted)
    return np.asarray(ordered[picked.astype(int)])
