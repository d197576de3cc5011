"""Constants whose grids TFLite has not: scales by blocks, and small floats, as float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.pairs import constant_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["dequantized_constant"]


def dequantized_constant(node: ir.Node, steps: np.ndarray) -> np.ndarray:
    """Give the real numbers of a constant that a DequantizeLinear reads.

    Raises:
        CannotLower: Its scales are not known, or do not fit it.
    """
    scale = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero = constant_of(given)
    if scale is None or (given is not None and zero is None):
        raise CannotLower("the scales of a constant are not known before it runs")
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    block = node.attributes["block_size"].as_int() if "block_size" in node.attributes else 0
    scales = _spread(np.asarray(scale, np.float32), steps.shape, axis, block)
    zeros = np.zeros((), np.float32)
    if zero is not None:
        zeros = _spread(zero.astype(np.float32), steps.shape, axis, block)
    return np.asarray((steps.astype(np.float32) - zeros) * scales, np.float32)


def _spread(numbers: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """Give every entry of a constant its number."""
    if numbers.size == 1:
        return numbers.reshape(())
    rank = len(shape)
    if not -rank <= axis < rank:
        raise CannotLower(f"its scales go along axis {axis} of a constant of rank {rank}")
    axis %= rank
    if numbers.ndim == 1 and numbers.size == shape[axis]:
        return numbers.reshape([-1 if each == axis else 1 for each in range(rank)])
    if numbers.ndim == rank and block > 0:
        wanted = -(-shape[axis] // block)
        if (*shape[:axis], wanted, *shape[axis + 1 :]) == numbers.shape:
            spread = np.repeat(numbers, block, axis)
            return np.take(spread, range(shape[axis]), axis)
    raise CannotLower(f"scales of shape {numbers.shape} do not fit a constant of {shape}")
