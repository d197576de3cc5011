"""What a tensor of the TFLite graph has become: a value of the ONNX graph, or a constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.model.tflite_graph import TfliteGraph, TfliteTensor

__all__ = ["CannotConvert", "Grid", "Held", "content_of", "grid_of", "real_numbers"]

#: Types of integers that stand for real numbers where a tensor has scales.
_QUANTIZED = ("int8", "uint8", "int16", "uint16", "int4", "int32", "int64")


class CannotConvert(Exception):
    """An operator has no form in ONNX: why, and what to do about it."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Grid:
    """Which real numbers the integers of a tensor stand for: ``(n - zero_point) * scale``.

    ``axis`` is the one with a scale per entry, in TFLite's order of the tensor's axes.
    """

    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None = None


@dataclass(slots=True, eq=False)
class Held:
    """A tensor of the TFLite graph as the ONNX graph has it.

    Attributes:
        shape: In TFLite's order of axes.
        order: Axis ``i`` of the ONNX values is axis ``order[i]`` of the tensor.
        grid: Where it is quantized.
        whole: Its integers, where it is quantized and no constant.
        real: Its real numbers, or the whole numbers or truths it holds; made when asked for.
        data: Its content in TFLite's order, integers of a grid as they are; None if the file
            does not fix it.
        turned: The same tensor in other orders of axes.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    grid: Grid | None = None
    whole: ir.Value | None = None
    real: ir.Value | None = None
    data: np.ndarray | None = None
    turned: dict[tuple[int, ...], Held] = field(default_factory=dict)
    constants: dict[tuple[object, ...], ir.Value] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def identity(self) -> tuple[int, ...]:
        """TFLite's own order of its axes."""
        return tuple(range(len(self.shape)))

    @property
    def lies_flat(self) -> bool:
        """Whether its numbers lie one after the other as TFLite has them.

        They do in TFLite's order, and where only axes of one entry have moved.
        """
        long = [axis for axis in self.order if self.shape[axis] != 1]
        return long == sorted(long)


def grid_of(tensor: TfliteTensor) -> Grid | None:
    """Give the grid of a tensor that holds integers and says what they stand for.

    Raises:
        CannotConvert: A scale is no positive number, or a zero point does not fit.
    """
    if not tensor.scales or tensor.dtype not in _QUANTIZED:
        return None
    dtype = "int8" if tensor.dtype == "int4" else tensor.dtype
    limits = np.iinfo(dtype)
    if not all(np.isfinite(each) and each > 0 for each in tensor.scales):
        raise CannotConvert(f"a scale of tensor {tensor.name!r} is no positive number")
    if not all(limits.min <= each <= limits.max for each in tensor.zero_points):
        raise CannotConvert(f"a zero point of tensor {tensor.name!r} does not fit {dtype}")
    return Grid(dtype, tensor.scales, tensor.zero_points, tensor.axis)


def content_of(graph: TfliteGraph, index: int) -> np.ndarray | None:
    """Give a constant as the file stores it, integers of 4 bits as int8.

    None where the file does not fix it, or numpy has no type for it, or it is sparse.
    """
    tensor, content = graph.tensors[index], graph.constant(index)
    if tensor.dtype != "int4" or content is None or tensor.is_sparse:
        return graph.array(index)
    pairs = np.frombuffer(content, np.uint8)
    # two in a byte, the lower half first
    halves = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(-1)[: tensor.elements]
    signed: np.ndarray = ((halves.astype(np.int8) ^ 8) - 8).reshape(tensor.shape)
    return signed


def real_numbers(
    data: np.ndarray, grid: Grid, order: Sequence[int] | None = None
) -> np.ndarray:
    """Give what the integers of a constant stand for, in float32.

    Args:
        data: The integers, axes in ``order``.
        grid: Its axis counts in TFLite's order.
        order: That of the axes of ``data``; TFLite's own without one.
    """
    shape = [1] * data.ndim
    if grid.axis is not None:
        axis = grid.axis if order is None else list(order).index(grid.axis)
        shape[axis] = -1
    else:
        shape = []
    scales = np.array(grid.scales, np.float32).reshape(shape)
    zeros = np.array(grid.zero_points, np.int64).reshape(shape)
    real: np.ndarray = ((data.astype(np.int64) - zeros) * scales.astype(np.float64)).astype(
        "f4"
    )
    return real
