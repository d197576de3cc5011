"""Metrics over labelled data that know how sure they are, alone and against one another.

A `Measure` is what one metric found on one set of outputs: its value, its 95 % interval, and
the interval of its difference to the same metric of other outputs for the same samples. That is
narrower than the two intervals suggest, for the samples are the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Protocol

from edgesdk.data.metrics import wilson_interval
from edgesdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Delta",
    "HitMeasure",
    "InfluenceMeasure",
    "Interval",
    "Measure",
    "ResampledMeasure",
    "mcnemar_p",
    "paired_interval",
]

#: 97.5 % point of the normal distribution.
_Z95 = 1.959963984540054
_SEED = 20260115
#: A slow metric is drawn less often, but not so seldom that percentiles say nothing.
_BUDGET_S = 20.0
_FEWEST_DRAWS = 100
#: Above so many pairs that differ, the exact test takes long and the normal one is as good.
_EXACT_PAIRS = 5000
#: A variance that was seen on fewer rows says nothing: on 3, what it calls 95 % holds 75 %.
_FEWEST_ROWS = 10
#: Draws that differ by less, in shares of the largest, differ by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval and how it was found; without ends where none can be stated."""

    lower: float | None
    upper: float | None
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """How much one measure is above another of the same samples.

    ``p_value`` is of the hypothesis that both are alike, where the method gives one; ``only``
    counts the rows that the first alone has right, and the second alone.
    """

    value: float
    interval: Interval
    p_value: float | None = None
    only: tuple[int, int] | None = None


class Measure(Protocol):
    """What one metric found.

    Attributes:
        metric: Its name.
        better: Whether larger or smaller values are better.
        value: What it is.
        count: Over how many rows.
        note: What a reader should know, or nothing.
    """

    metric: str
    better: Literal["larger", "smaller"]
    value: float
    count: int
    note: str

    def interval(self) -> Interval:
        """Give its 95 % interval."""
        ...

    def minus(self, other: Measure) -> Delta:
        """Give the difference to the same metric of other outputs for the same rows.

        Raises:
            DataError: The two are not of the same kind or number of rows.
        """
        ...


def _pair_of(one: Measure, other: object, kind: type) -> None:
    if not isinstance(other, kind) or getattr(other, "count", None) != one.count:
        raise DataError(f"cannot compare {one.metric}: it was not measured on the same rows")


class HitMeasure:
    """A rate of rows that are right: Wilson's interval, and Newcombe's for a difference."""

    better: Literal["larger", "smaller"] = "larger"

    def __init__(self, metric: str, hits: np.ndarray, *, note: str = "") -> None:
        self.metric = metric
        self.hits = hits.astype(bool)
        self.count = len(hits)
        self.value = float(self.hits.mean())
        self.note = note

    def interval(self) -> Interval:
        """Wilson's score interval."""
        low, high = wilson_interval(int(self.hits.sum()), self.count)
        return Interval(lower=low, upper=high, method="Wilson")

    def minus(self, other: Measure) -> Delta:
        """The paired difference, with McNemar's exact test."""
        _pair_of(self, other, HitMeasure)
        assert isinstance(other, HitMeasure)
        both = int((self.hits & other.hits).sum())
        ours = int((self.hits & ~other.hits).sum())
        theirs = int((~self.hits & other.hits).sum())
        low, high = paired_interval(both, ours, theirs, self.count - both - ours - theirs)
        return Delta(
            value=(ours - theirs) / self.count,
            interval=Interval(lower=low, upper=high, method="Newcombe, paired"),
            p_value=mcnemar_p(ours, theirs),
            only=(ours, theirs),
        )


class InfluenceMeasure:
    """A measure whose variance is the sum of the squares of what each row adds to it.

    Args:
        metric: Its name.
        value: From 0 to 1.
        influence: What each row adds, such that their squares add up to the variance.
        method: How the influence was found.
        note: What a reader should know.
        unsure: Why no interval can be stated whatever the influence; empty where one can.
    """

    better: Literal["larger", "smaller"] = "larger"

    def __init__(
        self,
        metric: str,
        value: float,
        influence: np.ndarray,
        *,
        method: str,
        note: str = "",
        unsure: str = "",
    ) -> None:
        self.metric = metric
        self.value = value
        self.influence = influence
        self.count = len(influence)
        self.note = note
        self._method = method
        self._unsure = unsure

    def interval(self) -> Interval:
        """The normal interval on the scale of the logit, which stays between 0 and 1.

        None is stated where the value is 0 or 1: a variance of zero would be no news.
        """
        error = math.sqrt(float(self.influence @ self.influence))
        why = self._why_none(error if 0.0 < self.value < 1.0 else 0.0)
        if why:
            return Interval(lower=None, upper=None, method=f"{self._method}: {why}")
        logit = math.log(self.value / (1.0 - self.value))
        half = _Z95 * error / (self.value * (1.0 - self.value))
        low, high = (_logistic(end) for end in _ends(logit, half))
        return Interval(lower=low, upper=high, method=self._method)

    def minus(self, other: Measure) -> Delta:
        """The paired difference: rows that move both do not count."""
        _pair_of(self, other, InfluenceMeasure)
        assert isinstance(other, InfluenceMeasure)
        moved = self.influence - other.influence
        error = math.sqrt(float(moved @ moved))
        value, method = self.value - other.value, f"{self._method}, paired"
        why = self._why_none(error)
        if why:
            none = Interval(lower=None, upper=None, method=f"{method}: {why}")
            return Delta(value=value, interval=none)
        low, high = _ends(value, _Z95 * error)
        return Delta(
            value=value,
            interval=Interval(lower=low, upper=high, method=method),
            p_value=math.erfc(abs(value) / error / math.sqrt(2.0)),
        )

    def _why_none(self, error: float) -> str:
        if error == 0.0:
            return "no variance seen"
        return _few(self.count) or self._unsure


class ResampledMeasure:
    """Any function of weighted rows, with percentiles of a seeded bootstrap over the rows.

    Args:
        metric: Its name.
        better: Whether larger or smaller values are better.
        statistic: From how often each row counts (``[count]``, whole numbers) to the value; may
            give NaN where a resample has nothing to measure.
        count: How many rows there are.
        draws: How many resamples.
        note: What a reader should know.
    """

    def __init__(
        self,
        metric: str,
        better: Literal["larger", "smaller"],
        statistic: Callable[[np.ndarray], float],
        count: int,
        *,
        draws: int = 1000,
        note: str = "",
    ) -> None:
        import numpy as np

        self.metric = metric
        self.better: Literal["larger", "smaller"] = better
        self.count = count
        self.note = note
        self._statistic = statistic
        self._draws = draws
        self._values: np.ndarray | None = None
        self.value = float(statistic(np.ones(count, dtype=np.int64)))

    def _resampled(self) -> np.ndarray:
        """Values of all resamples; the same seed draws the same rows for every measure."""
        import numpy as np

        if self._values is None:
            dice = np.random.default_rng(_SEED)
            values: list[float] = []
            deadline = time.monotonic() + _BUDGET_S
            for _ in range(self._draws):
                if len(values) >= _FEWEST_DRAWS and time.monotonic() > deadline:
                    break
                drawn = dice.integers(0, self.count, self.count)
                weights = np.bincount(drawn, minlength=self.count)
                values.append(float(self._statistic(weights)))
            self._values = np.array(values)
        return self._values

    def interval(self) -> Interval:
        """Percentiles of the resamples; none of few rows, or where all resamples are alike."""
        if why := _few(self.count):
            return Interval(lower=None, upper=None, method=f"bootstrap: {why}")
        return _percentiles(self._resampled(), "")

    def minus(self, other: Measure) -> Delta:
        """The paired difference: each resample has the same rows of both."""
        _pair_of(self, other, ResampledMeasure)
        assert isinstance(other, ResampledMeasure)
        value = self.value - other.value
        if why := _few(self.count):
            none = Interval(lower=None, upper=None, method=f"bootstrap, paired: {why}")
            return Delta(value=value, interval=none)
        ours, theirs = self._resampled(), other._resampled()
        draws = min(len(ours), len(theirs))
        return Delta(
            value=value, interval=_percentiles(ours[:draws] - theirs[:draws], ", paired")
        )


def _few(count: int) -> str:
    return f"fewer than {_FEWEST_ROWS} rows" if count < _FEWEST_ROWS else ""


def _percentiles(values: np.ndarray, suffix: str) -> Interval:
    import numpy as np

    method = f"bootstrap, {len(values)} draws{suffix}"
    known = values[np.isfinite(values)]
    if not len(known) or len(known) < 0.9 * len(values):
        why = "too many have nothing to measure"
    elif np.ptp(known) <= _ROUNDING * float(np.abs(known).max()):
        why = "no variance seen"
    else:
        low, high = np.percentile(known, [2.5, 97.5])
        return Interval(lower=float(low), upper=float(high), method=method)
    return Interval(lower=None, upper=None, method=f"{method}: {why}")


def _logistic(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(700.0, max(-700.0, value))))


def _ends(middle: float, half: float) -> tuple[float, float]:
    return middle - half, middle + half


def paired_interval(both: int, ours: int, theirs: int, neither: int) -> tuple[float, float]:
    """Give the 95 % interval of the difference of two rates of the same rows.

    Newcombe 1998 ("Improved confidence intervals for the difference between binomial
    proportions based on paired data"), method 10: Wilson's intervals, joined with the
    correlation of the two, which is corrected for continuity.

    Args:
        both: Rows that both have right.
        ours: Rows that the first alone has right.
        theirs: Rows that the second alone has right.
        neither: All other rows.
    """
    count = both + ours + theirs + neither
    if count <= 0:
        return -1.0, 1.0
    first, second = (both + ours) / count, (both + theirs) / count
    low1, high1 = wilson_interval(both + ours, count)
    low2, high2 = wilson_interval(both + theirs, count)
    margins = (both + ours) * (theirs + neither) * (both + theirs) * (ours + neither)
    product = both * neither - ours * theirs
    corrected = float(product)
    if product > 0:
        corrected = max(product - count / 2.0, 0.0)
    phi = corrected / math.sqrt(margins) if margins else 0.0

    def reach(one: float, two: float) -> float:
        return math.sqrt(max(0.0, one * one - 2.0 * phi * one * two + two * two))

    value = (ours - theirs) / count
    low = value - reach(first - low1, high2 - second)
    high = value + reach(high1 - first, second - low2)
    return max(-1.0, low), min(1.0, high)


def mcnemar_p(ours: int, theirs: int) -> float:
    """Give the two-sided p-value of McNemar's test that neither side is right more often.

    Exact (binomial) up to 5,000 rows that differ, then normal with a correction for continuity.
    """
    count = ours + theirs
    if count == 0:
        return 1.0
    if count > _EXACT_PAIRS:
        chi = max(0.0, abs(ours - theirs) - 1.0) / math.sqrt(count)
        return math.erfc(chi / math.sqrt(2.0))
    total, ways = 0, 1
    for hits in range(min(ours, theirs) + 1):
        total += ways
        ways = ways * (count - hits) // (hits + 1)
    # whole numbers of any length: divided as such, for no float holds them
    return min(1.0, float(Fraction(2 * total, 2**count)))
