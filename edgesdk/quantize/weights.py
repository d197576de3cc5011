"""Weights and biases as whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.profiles.values import QuantScheme
from edgesdk.quantize.grid import SMALLEST_SCALE, Grid, Step

if TYPE_CHECKING:
    import numpy as np

__all__ = ["WholeWeight", "bias_as_int32", "quantize_weight", "weight_grid"]

#: By how much a channel's range may shrink for the sake of its squared error.
_SHRINK = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.8, 0.75, 0.7)
#: A bias beyond this share of 32 bits makes its channel's step coarser, so that sums fit too.
_BIAS_REACH = 2.0**30
#: Where a bias asks for more it is clipped: the product of two scales stays a float32 number.
_LARGEST_SCALE = 2.0**120


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeWeight:
    """A weight in integers.

    ``scale`` has one entry per channel along ``axis``, or no axis; ``zero_point`` likewise.
    """

    integers: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None

    def is_below(self, floor: np.ndarray) -> bool:
        """Say whether a channel needs the coarser scale of ``floor``, or has only zeros."""
        import numpy as np

        others = tuple(i for i in range(self.integers.ndim) if i != self.axis)
        used = self.integers.any(axis=others)
        return bool(np.any(floor > self.scale) or not np.all(used))

    def numbers(self) -> np.ndarray:
        """Give the numbers that the integers stand for, in float64."""
        import numpy as np

        scale, zero = self.scale.astype(np.float64), self.zero_point.astype(np.float64)
        if self.axis is not None:
            shape = [1] * self.integers.ndim
            shape[self.axis] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        numbers: np.ndarray = (self.integers.astype(np.float64) - zero) * scale
        return numbers


def weight_grid(scheme: QuantScheme) -> Grid:
    """Give the integers that a scheme's weights use.

    With ``reduce_range`` they keep to 7 bits: two products of 8 bits then fit into 16
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
    """
    dtype, _, kind = scheme.weights.partition("-per-")
    symmetric = kind.endswith("-symmetric")
    if dtype == "uint8":
        high = 127 if scheme.reduce_range else 255
        return Grid(dtype=dtype, low=0, high=high, symmetric=symmetric)
    high = 63 if scheme.reduce_range else 127
    low = -high if scheme.rules.narrow_weights else -high - 1
    return Grid(dtype=dtype, low=low, high=high, symmetric=symmetric)


def quantize_weight(
    weight: np.ndarray,
    grid: Grid,
    axis: int | None,
    *,
    least_error: bool = False,
    floor: np.ndarray | None = None,
    importance: np.ndarray | None = None,
) -> WholeWeight:
    """Give a weight in integers.

    Args:
        weight: Float, finite, not empty.
        grid: The integers.
        axis: One scale for each index along it; None for one scale.
        least_error: Choose each scale for the least squared error instead of the full range.
        floor: Scales may not be smaller, ``[channels]`` or one.
        importance: Weight of each element's squared error, broadcast against ``[channels, K]``
            rows as the weight lies with ``axis`` in front.
    """
    import numpy as np

    rows = _rows(weight, axis)
    if not grid.symmetric:
        step = _step_above(grid, float(rows.min()), float(rows.max()), floor)
        return WholeWeight(
            integers=grid.quantize(weight, step),
            scale=np.array(step.scale, np.float32),
            zero_point=np.array(step.zero_point, grid.dtype),
            axis=None,
        )
    reach = np.abs(rows).max(axis=1)
    scale = reach / grid.high
    if least_error:
        scale = _least_error(rows, scale, grid, importance)
    scale = np.where(reach > 0, np.maximum(scale, SMALLEST_SCALE), 1.0)
    if floor is not None:
        scale = np.where(reach > 0, np.maximum(scale, floor), np.maximum(floor, SMALLEST_SCALE))
    scale = np.minimum(scale, _LARGEST_SCALE).astype(np.float32)
    whole = np.clip(np.rint(rows / scale[:, None]), grid.low, grid.high).astype(grid.dtype)
    return WholeWeight(
        integers=_unrows(whole, weight.shape, axis),
        scale=scale if axis is not None else scale.reshape(()),
        zero_point=np.zeros(scale.shape if axis is not None else (), grid.dtype),
        axis=axis,
    )


def bias_as_int32(bias: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Round a bias to steps of input scale times weight scale, within 32 bits."""
    import numpy as np

    # both scales can be so small that their product is 0 in float32; only a bias of 0 has those
    steps = np.maximum(scale.astype(np.float64), np.finfo(np.float32).smallest_subnormal)
    whole = np.rint(bias.reshape(-1).astype(np.float64) / steps)
    return np.clip(whole, -(2**31) + 1, 2**31 - 1).astype(np.int32)


def bias_floor(bias: np.ndarray, input_scale: float) -> np.ndarray:
    """Give the smallest weight scale per channel with which the bias fits into 32 bits."""
    import numpy as np

    return np.abs(bias.reshape(-1).astype(np.float64)) / (_BIAS_REACH * input_scale)


def _step_above(grid: Grid, low: float, high: float, floor: np.ndarray | None) -> Step:
    step = grid.step_for(low, high)
    least = 0.0 if floor is None else float(floor.max())
    if low == high == 0.0:
        return Step(scale=max(least, SMALLEST_SCALE), zero_point=step.zero_point)
    if step.scale >= least:
        return step
    wider = least * grid.steps / (max(high, 0.0) - min(low, 0.0))
    return grid.step_for(low * wider, high * wider)


def _rows(weight: np.ndarray, axis: int | None) -> np.ndarray:
    import numpy as np

    if axis is None:
        return weight.reshape(1, -1).astype(np.float64)
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)


def _unrows(rows: np.ndarray, shape: tuple[int, ...], axis: int | None) -> np.ndarray:
    import numpy as np

    if axis is None:
        return rows.reshape(shape)
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, axis))


def _least_error(
    rows: np.ndarray, scale: np.ndarray, grid: Grid, importance: np.ndarray | None
) -> np.ndarray:
    import numpy as np

    best, least = scale.copy(), np.full(len(scale), np.inf)
    for factor in _SHRINK:
        tried = np.maximum(scale * factor, SMALLEST_SCALE)[:, None]
        error = (np.clip(np.rint(rows / tried), grid.low, grid.high) * tried - rows) ** 2
        sums = (error if importance is None else error * importance).sum(axis=1)
        better = sums < least
        best[better], least[better] = tried[better, 0], sums[better]
    return best
