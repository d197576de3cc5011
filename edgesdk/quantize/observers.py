"""What is remembered of a tensor while samples stream by, in memory that does not grow.

The least and the greatest number are exact, per channel where that is wanted. Everything else
(percentiles, squared error, entropy, means) is taken from a sample of the tensor's positions:
whole vectors across the channels, one of every ``2**level`` that went by, at a place that
varies from block to block. When there are too many, one of every two is forgotten and the level
rises. Which positions are held depends on nothing but how many there were, so it is the same
however samples are batched, and a tensor whose numbers all fit is known exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesdk.quantize.grid import Grid
from edgesdk.quantize.ranges import (
    RangeMethod,
    histogram,
    least_entropy,
    least_squared_error,
    percentile,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = ["TensorStats"]

#: Numbers kept of one tensor at most; of one with very many channels, so many positions.
_KEPT_NUMBERS, _FEWEST_ROWS = 1 << 15, 32
#: Weight of a new sample in the moving average.
_MOMENTUM = 0.1


@dataclass(slots=True)
class TensorStats:
    """What is known of one tensor.

    Attributes:
        axis: The axis of the channels; None takes the tensor as one channel.
        by_channel: Whether `channel_low` and `channel_high` are kept.
    """

    axis: int | None = None
    by_channel: bool = False
    low: float = 0.0
    high: float = 0.0
    seen: int = 0
    not_finite: int = 0
    average: tuple[float, float] = (0.0, 0.0)
    channel_low: np.ndarray | None = None
    channel_high: np.ndarray | None = None
    _sums: np.ndarray | None = None
    _rows: list[np.ndarray] = field(default_factory=list)
    _places: int = 0
    _level: int = 0

    def update(self, array: np.ndarray, *, together: int = 1) -> None:
        """Take in what one run gave for the tensor; an empty array changes nothing.

        So many samples ran ``together``, one after the other along the first axis.
        """
        import numpy as np

        if not array.size:
            return
        cut = self._cut(array)
        if self.by_channel:
            lows, highs = cut.min(axis=2), cut.max(axis=2)
            low, high = lows.min(axis=0), highs.max(axis=0)
        else:
            lows = highs = array
        lows = lows.reshape(together, -1).min(axis=1)
        highs = highs.reshape(together, -1).max(axis=1)
        if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
            self.not_finite += 1
            return
        for least, most in zip(lows.tolist(), highs.tolist(), strict=True):
            self._widen(least, most)
        if self.by_channel:
            if self.channel_low is None or self.channel_high is None:
                self.channel_low, self.channel_high = low, high
            elif self.channel_low.shape == low.shape:
                self.channel_low = np.minimum(self.channel_low, low)
                self.channel_high = np.maximum(self.channel_high, high)
            else:
                self.by_channel = False
        self._sample(cut)
        if self.axis is not None:
            sums = cut.sum(axis=2, dtype=np.float32).sum(axis=0, dtype=np.float64)
            if self._sums is None:
                self._sums = sums
            elif self._sums.shape == sums.shape:
                self._sums = self._sums + sums

    @property
    def channel_mean(self) -> np.ndarray | None:
        """The mean of each channel over all that was seen; None without an axis."""
        return None if self._sums is None else self._sums / self._places

    def _widen(self, low: float, high: float) -> None:
        """Take in the least and the greatest number of one sample."""
        if self.seen:
            share = _MOMENTUM
            self.low, self.high = min(self.low, low), max(self.high, high)
            old_low, old_high = self.average
            self.average = (
                old_low + share * (low - old_low),
                old_high + share * (high - old_high),
            )
        else:
            self.low, self.high, self.average = low, high, (low, high)
        self.seen += 1

    @property
    def rows(self) -> np.ndarray:
        """The sampled positions, ``[positions, channels]``; one channel without an axis."""
        import numpy as np

        if not self._rows:
            return np.zeros((0, 1), np.float32)
        if len(self._rows) > 1:
            self._rows = [np.concatenate(self._rows)]
        return self._rows[0]

    def range(self, method: RangeMethod, grid: Grid) -> tuple[float, float]:
        """Give the range that a scale should cover, by one of `RANGE_METHODS`."""
        if method == "moving-average":
            return self.average
        rows = self.rows
        if method == "min-max" or self.low == self.high or not rows.size:
            return self.low, self.high
        if method == "percentile":
            return percentile(rows, self.low, self.high)
        counts, edges = histogram(rows, self.low, self.high, self._level)
        if method == "mse":
            return least_squared_error(counts, edges, grid)
        return least_entropy(counts, edges, grid)

    def scale_channels(self, factors: np.ndarray, ceiling: float | None = None) -> None:
        """Rewrite history as if every channel had been multiplied by its factor (above 0)."""
        import numpy as np

        assert self.channel_low is not None
        assert self.channel_high is not None
        top = np.inf if ceiling is None else ceiling
        self.channel_low = np.minimum(self.channel_low * factors, top)
        self.channel_high = np.minimum(self.channel_high * factors, top)
        self.low, self.high = float(self.channel_low.min()), float(self.channel_high.max())
        self.average = (self.low, self.high)
        if self._sums is not None:
            self._sums = self._sums * factors
        self._rows = [np.minimum(self.rows * factors, top).astype(np.float32)]

    def merge(self, other: TensorStats) -> TensorStats:
        """Give the statistics of both streams, this one first."""
        import numpy as np

        if not other.seen or not self.seen:
            whole = (self if self.seen else other).copy()
            whole.not_finite = self.not_finite + other.not_finite
            return whole
        whole = self.copy()
        whole.low, whole.high = min(self.low, other.low), max(self.high, other.high)
        whole.seen += other.seen
        whole.not_finite += other.not_finite
        share = other.seen / whole.seen
        whole.average = (
            self.average[0] + share * (other.average[0] - self.average[0]),
            self.average[1] + share * (other.average[1] - self.average[1]),
        )
        whole.by_channel = self.by_channel and other.by_channel
        if self.channel_low is not None and other.channel_low is not None:
            assert self.channel_high is not None
            assert other.channel_high is not None
            if self.channel_low.shape == other.channel_low.shape:
                whole.channel_low = np.minimum(self.channel_low, other.channel_low)
                whole.channel_high = np.maximum(self.channel_high, other.channel_high)
            else:
                whole.by_channel = False
        if self.rows.shape[1] == other.rows.shape[1]:
            whole._join(other)
            if self._sums is not None and other._sums is not None:
                whole._sums = self._sums + other._sums
        return whole

    def copy(self) -> TensorStats:
        """Give a copy that can be scaled on its own."""
        return TensorStats(
            axis=self.axis,
            by_channel=self.by_channel,
            low=self.low,
            high=self.high,
            seen=self.seen,
            not_finite=self.not_finite,
            average=self.average,
            channel_low=self.channel_low,
            channel_high=self.channel_high,
            _sums=self._sums,
            _rows=[self.rows] if self._rows else [],
            _places=self._places,
            _level=self._level,
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Give everything as arrays, for `from_arrays`."""
        import numpy as np

        numbers = [self.low, self.high, *self.average]
        counts = [self.seen, self.not_finite, self._places, self._level, int(self.by_channel)]
        arrays = {"numbers": np.array(numbers), "counts": np.array(counts), "rows": self.rows}
        if self._sums is not None:
            arrays["sums"] = self._sums
        if self.by_channel and self.channel_low is not None and self.channel_high is not None:
            arrays |= {"channel_low": self.channel_low, "channel_high": self.channel_high}
        return arrays

    def from_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take up what `to_arrays` gave.

        Raises:
            KeyError: Something is missing.
            ValueError: Something has another shape.
        """
        self.low, self.high, *average = (float(one) for one in arrays["numbers"])
        self.average = (average[0], average[1])
        counts = (int(one) for one in arrays["counts"])
        self.seen, self.not_finite, self._places, self._level, by_channel = counts
        self.by_channel = bool(by_channel)
        self._sums = arrays.get("sums")
        self._rows = [arrays["rows"]] if arrays["rows"].size else []
        if "channel_low" in arrays:
            self.channel_low, self.channel_high = arrays["channel_low"], arrays["channel_high"]

    def _cut(self, array: np.ndarray) -> np.ndarray:
        """View the array as ``[before, channels, after]``."""
        if self.axis is None or array.ndim < 2:
            return array.reshape(1, 1, -1)
        axis = self.axis % array.ndim
        before = 1
        for extent in array.shape[:axis]:
            before *= extent
        return array.reshape(before, array.shape[axis], -1)

    def _sample(self, cut: np.ndarray) -> None:
        before, channels, after = cut.shape
        if self._rows and self._rows[0].shape[1] != channels:
            return
        first, last = self._places, self._places + before * after
        self._places = last
        while last > _most_rows(channels) << self._level:
            self._thin()
        chosen = _chosen(first, last, self._level) - first
        self._rows.append(cut[chosen // after, :, chosen % after].astype("float32"))

    def _thin(self) -> None:
        """Forget one of every two positions."""
        import numpy as np

        self._level += 1
        rows = self.rows
        pairs = np.arange(-(-len(rows) // 2))
        chosen = 2 * pairs + _bits(pairs, self._level)
        if self._rows:
            self._rows = [rows[chosen[chosen < len(rows)]]]

    def _join(self, other: TensorStats) -> None:
        """Take over the sampled positions of another stream."""
        import numpy as np

        other = other.copy()
        while other._level < self._level:
            other._thin()
        while self._level < other._level:
            self._thin()
        self._places += other._places
        self._rows = [np.concatenate([self.rows, other.rows])]
        while len(self.rows) > _most_rows(self.rows.shape[1]):
            self._thin()


def _most_rows(channels: int) -> int:
    return max(_FEWEST_ROWS, _KEPT_NUMBERS // channels)


def _chosen(first: int, last: int, level: int) -> np.ndarray:
    """Give the positions from ``first`` up to ``last`` that are held at a level.

    Those of a level are among those of the level below.
    """
    import numpy as np

    blocks = np.arange(first >> level, -(-last >> level) + 1, dtype=np.int64)
    for each in range(level, 0, -1):
        blocks = 2 * blocks + _bits(blocks, each)
    chosen: np.ndarray = blocks[(blocks >= first) & (blocks < last)]
    return chosen


def _bits(blocks: np.ndarray, level: int) -> np.ndarray:
    """Give which half of each block is held: 0 or 1, without a pattern that data may have."""
    bits: np.ndarray = ((blocks + 977 * level) * 2654435761 >> 21) & 1
    return bits
