"""Convolutions and pools: windows that move over the axes between batch and channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgesdk.importers.tflite.held import CannotConvert, Grid, Held
from edgesdk.importers.tflite.registry import converts
from edgesdk.importers.tflite.site import CHANNELS_FIRST, Site

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["bias_of", "note_hybrid"]

_VOLUME_FIRST = (0, 4, 1, 2, 3)


@converts("CONV_2D")
def _conv(site: Site) -> None:
    weights = site.shape(1)
    _expect_rank(site, 0, 4)
    _expect_rank(site, 1, 4)
    channels = site.shape(0)[3]
    if not weights[3] or channels % weights[3]:
        raise CannotConvert(f"it has {channels} channels, and weights for {weights[3]}")
    _convolve(site, (0, 3, 1, 2), weights[1:3], groups=channels // weights[3])


@converts("DEPTHWISE_CONV_2D")
def _depthwise(site: Site) -> None:
    _expect_rank(site, 0, 4)
    _expect_rank(site, 1, 4)
    weights, channels = site.shape(1), site.shape(0)[3]
    if not channels or weights[3] % channels:
        raise CannotConvert(f"it has {channels} channels, and weights for {weights[3]}")
    _convolve(site, (3, 0, 1, 2), weights[1:3], groups=channels)


def _convolve(
    site: Site, order: tuple[int, ...], kernel: tuple[int, ...], *, groups: int
) -> None:
    """Make a Conv whose weights have axes in ``order``, outputs first."""
    strides = site.number("stride_h"), site.number("stride_w")
    dilations = site.number("dilation_h", 1), site.number("dilation_w", 1)
    note_hybrid(site)
    inputs = [site.take(0, CHANNELS_FIRST), site.take(1, order), bias_of(site, 2, order[0])]
    value = site.emit(
        "Conv",
        inputs,
        {
            "kernel_shape": kernel,
            "strides": strides,
            "dilations": dilations,
            "pads": _pads(site, site.shape(0)[1:3], kernel, strides, dilations),
            "group": groups,
        },
    )
    site.give(site.activated(value), CHANNELS_FIRST)


@converts("CONV_3D")
def _conv_3d(site: Site) -> None:
    _expect_rank(site, 0, 5)
    _expect_rank(site, 1, 5)
    axes = ("d", "h", "w")
    strides = tuple(site.number(f"stride_{axis}") for axis in axes)
    dilations = tuple(site.number(f"dilation_{axis}", 1) for axis in axes)
    weights = site.shape(1)
    if site.shape(0)[4] != weights[3]:
        raise CannotConvert("it has groups of channels")
    inputs = [
        site.take(0, _VOLUME_FIRST),
        site.take(1, (4, 3, 0, 1, 2)),
        bias_of(site, 2, 4),
    ]
    value = site.emit(
        "Conv",
        inputs,
        {
            "kernel_shape": weights[:3],
            "strides": strides,
            "dilations": dilations,
            "pads": _pads(site, site.shape(0)[1:4], weights[:3], strides, dilations),
        },
    )
    site.give(site.activated(value), _VOLUME_FIRST)


@converts("TRANSPOSE_CONV")
def _transpose_conv(site: Site) -> None:
    _expect_rank(site, 1, 4)
    _expect_rank(site, 2, 4)
    out, read, kernel = site.out_shape()[1:3], site.shape(2)[1:3], site.shape(1)[1:3]
    strides = site.number("stride_h"), site.number("stride_w")
    note_hybrid(site, 2)
    before, after, extra = [], [], []
    for axis in range(2):
        reach = (read[axis] - 1) * strides[axis] + kernel[axis]
        total = 0
        if site.text("padding") == "SAME":
            total = max(
                (-(-out[axis] // strides[axis]) - 1) * strides[axis] + kernel[axis] - out[axis],
                0,
            )
        before.append(total // 2)
        rest = reach - total // 2 - out[axis]
        after.append(max(rest, 0))
        extra.append(max(-rest, 0))
    inputs = [
        site.take(2, CHANNELS_FIRST),
        site.take(1, (3, 0, 1, 2)),
        bias_of(site, 3, 0, read=2),
    ]
    value = site.emit(
        "ConvTranspose",
        inputs,
        {
            "kernel_shape": kernel,
            "strides": strides,
            "pads": (*before, *after),
            "output_padding": tuple(extra),
        },
    )
    site.give(site.activated(value), CHANNELS_FIRST)


@converts("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")
def _pool(site: Site) -> None:
    _expect_rank(site, 0, 4)
    kernel = site.number("filter_h"), site.number("filter_w")
    strides = site.number("stride_h"), site.number("stride_w")
    pads = _pads(site, site.shape(0)[1:3], kernel, strides, (1, 1))
    value = site.take(0, CHANNELS_FIRST)
    fields = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if site.op.name == "MAX_POOL_2D":
        value = site.emit("MaxPool", [value], fields)
    elif site.op.name == "AVERAGE_POOL_2D":
        value = site.emit("AveragePool", [value], fields)
    else:
        squares = site.emit("Mul", [value, value])
        value = site.emit("Sqrt", [site.emit("AveragePool", [squares], fields)])
    site.give(site.activated(value), CHANNELS_FIRST)


def bias_of(site: Site, position: int, axis: int, *, read: int = 0) -> ir.Value | None:
    """Give the bias of a product with the weights of input 1, or None where there is none.

    Where input and weights are quantized its integers count steps of input scale times weight
    scale, whatever the file says of the bias itself.

    Args:
        site: The operator.
        position: Of the bias.
        axis: Of the weights, TFLite's, along which they may have a scale each.
        read: Position of what is multiplied.
    """
    if not site.has(position):
        return None
    held, source, weights = site.held(position), site.held(read), site.held(1)
    is_whole = held.data is not None and held.data.dtype.kind == "i"
    if not is_whole or source.grid is None or weights.grid is None:
        return site.take(position)
    if weights.grid.axis not in (None, axis):
        raise CannotConvert(f"its weights have scales along axis {weights.grid.axis}")
    scales = np.array(weights.grid.scales, np.float64) * source.grid.scales[0]
    grid = Grid(
        held.data.dtype.name if held.data is not None else "int32",
        tuple(float(each) for each in scales.astype(np.float32)),
        (0,) * scales.size,
        0 if weights.grid.axis is not None else None,
    )
    if not all(each > 0 for each in grid.scales):
        raise CannotConvert("the product of its scales is no positive float32")
    return site.builder.real(Held(held.shape, held.identity, grid, data=held.data))


def note_hybrid(site: Site, read: int = 0) -> None:
    """Remember an operator that LiteRT rounds the input of to 8 bits as it runs."""
    if site.tensor(read).dtype == "float32" and site.is_quantized(1):
        site.walk.hybrid.append(site.op.index)


def _pads(
    site: Site,
    space: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """Give ONNX's pads: in front of every axis, then behind."""
    if min((*kernel, *strides, *dilations)) < 1:
        raise CannotConvert(
            f"its window is {tuple(kernel)}, its strides {tuple(strides)}, its dilations "
            f"{tuple(dilations)}"
        )
    totals = [0] * len(space)
    if site.text("padding") == "SAME":
        for axis, extent in enumerate(space):
            wide = (kernel[axis] - 1) * dilations[axis] + 1
            steps = math.ceil(extent / strides[axis])
            totals[axis] = max((steps - 1) * strides[axis] + wide - extent, 0)
    before = [total // 2 for total in totals]
    return (*before, *(total - half for total, half in zip(totals, before, strict=True)))


def _expect_rank(site: Site, position: int, rank: int) -> None:
    if len(site.shape(position)) != rank:
        raise CannotConvert(
            f"its input {position} has {len(site.shape(position))} dimensions (expected {rank})"
        )
