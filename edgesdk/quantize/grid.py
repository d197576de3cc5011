"""The arithmetic of scales: from a range to scale and zero point, from numbers to integers.

``real = scale * (integer - zero_point)``, rounding half to even, as ONNX's QuantizeLinear says
(https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html). Scales are float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.profiles.values import ActivationScheme

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SMALLEST_SCALE", "Grid", "Step", "activation_grid"]

#: Scales below this are subnormal, or their reciprocal is infinite, in float32.
SMALLEST_SCALE = 2.0**-120


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The integers that stand for numbers: from ``low`` to ``high``, of the numpy ``dtype``."""

    dtype: str
    low: int
    high: int
    symmetric: bool

    @property
    def steps(self) -> int:
        """How many steps there are between the two ends."""
        return self.high - self.low

    def step_for(self, low: float, high: float, *, inside: bool = False) -> Step:
        """Give the finest step whose grid covers a range, which is widened to hold 0.

        Where the range begins at 0 its other end is not exceeded by rounding. With ``inside``
        neither end is: an activation that clips at both can then be left out by the runtime.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if self.symmetric:
            scale = max(-low, high) / self.high
            return Step(scale=_as_scale(scale), zero_point=0)
        scale = _as_scale((high - low) / self.steps)
        zero_point = round(self.low - low / scale)
        zero_point = max(self.low, min(self.high, zero_point))
        if inside and self.low < zero_point < self.high:
            reach = min(high / (self.high - zero_point), -low / (zero_point - self.low))
            return Step(scale=_below(_as_scale(reach)), zero_point=zero_point)
        if zero_point == self.low and scale * self.steps > high > 0:
            scale = _below(scale)
        return Step(scale=scale, zero_point=zero_point)

    def fixed_step(self, low: float, high: float) -> Step:
        """Give the step of a half-open interval that the integers divide evenly."""
        if self.symmetric:
            reach = 1 << (self.high.bit_length())
            return Step(scale=_as_scale(max(-low, high) / reach), zero_point=0)
        scale = (high - low) / (self.steps + 1)
        return Step(scale=_as_scale(scale), zero_point=round(self.low - low / scale))

    def range_of(self, step: Step) -> tuple[float, float]:
        """Give the least and the greatest number that a step can stand for."""
        return (
            step.scale * (self.low - step.zero_point),
            step.scale * (self.high - step.zero_point),
        )

    def quantize(self, numbers: np.ndarray, step: Step) -> np.ndarray:
        """Round numbers to the grid; those beyond it go to its ends."""
        import numpy as np

        whole = np.rint(numbers / np.float32(step.scale)) + step.zero_point
        clipped: np.ndarray = np.clip(whole, self.low, self.high).astype(self.dtype)
        return clipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Scale and zero point of one tensor."""

    scale: float
    zero_point: int


def activation_grid(scheme: ActivationScheme) -> Grid:
    """Give the integers of an activation scheme."""
    dtype, kind = scheme.split("-")
    symmetric = kind == "symmetric"
    if dtype == "uint8":
        return Grid(dtype=dtype, low=0, high=255, symmetric=symmetric)
    high = 127 if dtype == "int8" else 32767
    low = -high if symmetric else -high - 1
    return Grid(dtype=dtype, low=low, high=high, symmetric=symmetric)


def _as_scale(scale: float) -> float:
    """Round to float32, away from numbers without a reciprocal; 1 stands for nothing seen."""
    import numpy as np

    if not scale > 0:
        return 1.0
    return float(np.float32(min(max(scale, SMALLEST_SCALE), 2.0**120)))


def _below(scale: float) -> float:
    import numpy as np

    return float(np.nextafter(np.float32(scale), np.float32(0)))
