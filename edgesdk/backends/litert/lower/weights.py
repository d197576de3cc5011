"""Weights and biases of what multiplies and accumulates, in the numbers its kernel wants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Grid, Tensor
from edgesdk.backends.litert.lower.site import Site

__all__ = ["Kernel", "bias_of", "kernel_of"]

#: Scales of a bias that differ from those of the sum by less are the same, rounded differently.
_NEAR = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """How a multiplying node computes.

    Attributes:
        grid: Of its output; None where it computes in float32.
        weights: In ONNX's layout: float32, or int8 on ``scales``.
        scales: Of the weights, one or one per entry of ``axis``.
        axis: The axis of the weights with a scale per entry.
        read: The grid of its input.
    """

    grid: Grid | None
    weights: np.ndarray
    scales: tuple[float, ...] = ()
    axis: int | None = None
    read: Grid | None = None

    def weight_tensor(self, site: Site, data: np.ndarray, axis: int | None) -> Tensor:
        """Make the constant; ``axis`` is where the output's channels went in ``data``."""
        name = site.node.inputs[1]
        label = (name.name if name is not None else None) or "weights"
        if self.grid is None:
            if site.is_half(1):
                return site.builder.in_float(
                    site.builder.constant(data.astype(np.float16), label)
                )
            return site.builder.constant(data.astype(np.float32, copy=False), label)
        many = len(self.scales) > 1
        grid = Grid("int8", self.scales, (0,) * len(self.scales), axis if many else None)
        return site.builder.constant(data, label, grid=grid)


def kernel_of(site: Site, axis: int) -> Kernel:
    """Decide how a node with constant weights as input 1 computes.

    In integers where input, weights and output are quantized as TFLite wants that: weights of
    8 bits around 0, with one scale or one per entry of ``axis``. Else in float32.

    Raises:
        CannotLower: The weights are not constant.
    """
    held = site.held(1)
    tensor = held.tensor
    if tensor.data is None:
        raise CannotLower("its weights are not constant")
    read, grid = site.grid(0), site.kernel_grid(0)
    weights = tensor.grid
    fits = (
        grid is not None
        and read is not None
        and weights is not None
        and weights.dtype == "int8"
        and weights.is_centred
        and weights.axis in (None, axis)
    )
    if not fits or weights is None:
        values = site.constant(1)
        assert values is not None
        return Kernel(grid=None, weights=values.astype(np.float32, copy=False))
    return Kernel(
        grid=grid, weights=tensor.data, scales=weights.scales, axis=weights.axis, read=read
    )


def bias_of(
    site: Site, kernel: Kernel, position: int, count: int, *, factor: float = 1.0
) -> Tensor:
    """Make the bias of ``count`` entries, of zeros where the node has none.

    Of a kernel that computes in integers it is int32 (int64 for int16 activations) on the grid
    of the sum, input scale times weight scale, and taken as it is where it lies there already.
    """
    name = "bias"
    values = np.zeros(count, np.float32)
    if site.has(position):
        given = site.constant(position)
        if given is None:
            raise CannotLower("its bias is not constant")
        name = site.node.inputs[position].name or name  # type: ignore[union-attr] # has() said so
        try:
            values = np.broadcast_to(given.reshape(-1) * np.float32(factor), (count,))
        except ValueError:
            raise CannotLower(f"its bias has {given.size} entries for {count}") from None
    if kernel.grid is None or kernel.read is None:
        return site.builder.constant(np.array(values, np.float32), name)
    sums = np.array(kernel.scales, np.float64) * kernel.read.scale
    dtype = "int64" if kernel.grid.dtype == "int16" else "int32"
    grid = Grid(
        dtype,
        tuple(float(np.float32(each)) for each in sums),
        (0,) * sums.size,
        0 if sums.size > 1 else None,
    )
    steps = _stored_steps(site, position, sums, count) if factor == 1.0 else None
    if steps is None:
        limits = np.iinfo(np.int32)
        rounded = np.rint(values.astype(np.float64) / sums)
        steps = np.clip(np.nan_to_num(rounded), limits.min, limits.max)
    return site.builder.constant(steps.astype(dtype), name, grid=grid)


def _stored_steps(site: Site, position: int, sums: np.ndarray, count: int) -> np.ndarray | None:
    """Give the integers of a bias that lies on the grid of the sum already."""
    if not site.has(position):
        return None
    tensor = site.held(position).tensor
    grid = tensor.grid
    if tensor.data is None or grid is None or grid.dtype != "int32" or not grid.is_centred:
        return None
    if tensor.data.size != count:
        return None
    scales = np.array(grid.scales, np.float64)
    if not np.allclose(scales, sums, rtol=_NEAR, atol=0.0):
        return None
    return tensor.data.reshape(-1)
