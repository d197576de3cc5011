"""Operators that slide a window, in a plain form."""

from __future__ import annotations

import numpy as np

from tests.unit.backends.ethos_u.graphs import Spec, T, const


def conv(
    *,
    size: tuple[int, int] = (16, 16),
    depth: int = 8,
    channels: int = 8,
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: int = 0,
    activation: int = 0,
    batch: int = 1,
    dtype: str = "int8",
    weight: int = 1,
    bias: T | None = None,
    no_bias: bool = False,
    groups: int = 1,
) -> Spec:
    """CONV_2D."""
    out = _window(size, kernel, stride, dilation, padding)
    weights = const(
        np.full((channels, *kernel, depth // groups), weight), "int8", scales=(0.01,)
    )
    bias = bias or const(
        np.zeros(channels), "int64" if dtype == "int16" else "int32", scales=(0.0005,)
    )
    return Spec(
        "CONV_2D",
        (T((batch, *size, depth), dtype), weights, None if no_bias else bias),
        (T((batch, *out, channels), dtype),),
        "Conv2DOptions",
        {
            "padding": padding,
            "strideH": stride[0],
            "strideW": stride[1],
            "dilationHFactor": dilation[0],
            "dilationWFactor": dilation[1],
            "fusedActivationFunction": activation,
        },
    )


def depthwise(
    *,
    size: tuple[int, int] = (16, 16),
    depth: int = 8,
    multiplier: int = 1,
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: int = 0,
    activation: int = 0,
    batch: int = 1,
    dtype: str = "int8",
    weight: int = 1,
) -> Spec:
    """DEPTHWISE_CONV_2D."""
    out = _window(size, kernel, stride, dilation, padding)
    channels = depth * multiplier
    weights = const(np.full((1, *kernel, channels), weight), "int8", scales=(0.01,))
    bias = const(np.zeros(channels), "int64" if dtype == "int16" else "int32", scales=(0.0005,))
    return Spec(
        "DEPTHWISE_CONV_2D",
        (T((batch, *size, depth), dtype), weights, bias),
        (T((batch, *out, channels), dtype),),
        "DepthwiseConv2DOptions",
        {
            "padding": padding,
            "strideH": stride[0],
            "strideW": stride[1],
            "dilationHFactor": dilation[0],
            "dilationWFactor": dilation[1],
            "depthMultiplier": multiplier,
            "fusedActivationFunction": activation,
        },
    )


def _window(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: int,
) -> tuple[int, int]:
    """Give height and width of what a window makes; ``padding`` 0 is SAME, 1 VALID."""
    out = []
    for extent, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        span = (k - 1) * d + 1
        out.append(-(-extent // s) if padding == 0 else max(1, -(-(extent - span + 1) // s)))
    return out[0], out[1]


def pool(
    op: str = "MAX_POOL_2D",
    *,
    size: tuple[int, int] = (16, 16),
    depth: int = 8,
    kernel: tuple[int, int] = (2, 2),
    stride: tuple[int, int] = (2, 2),
    padding: int = 1,
    activation: int = 0,
    batch: int = 1,
    dtype: str = "int8",
) -> Spec:
    """A pool."""
    out = _window(size, kernel, stride, (1, 1), padding)
    return Spec(
        op,
        (T((batch, *size, depth), dtype),),
        (T((batch, *out, depth), dtype),),
        "Pool2DOptions",
        {
            "padding": padding,
            "strideH": stride[0],
            "strideW": stride[1],
            "filterHeight": kernel[0],
            "filterWidth": kernel[1],
            "fusedActivationFunction": activation,
        },
    )


def transpose_conv(
    *,
    size: tuple[int, int] = (8, 8),
    depth: int = 8,
    channels: int = 4,
    kernel: tuple[int, int] = (2, 2),
    stride: tuple[int, int] = (2, 2),
    padding: int = 0,
    out: tuple[int, int] | None = None,
    bias: bool = True,
    dtype: str = "int8",
    batch: int = 1,
    weight: int = 1,
) -> Spec:
    """TRANSPOSE_CONV."""
    if out is None:
        grown = [
            e * s + (max(k - s, 0) if padding else 0)
            for e, s, k in zip(size, stride, kernel, strict=True)
        ]
        out = grown[0], grown[1]
    shape = (batch, *out, channels)
    weights = const(np.full((channels, *kernel, depth), weight), "int8", scales=(0.01,))
    zeros = const(
        np.zeros(channels), "int64" if dtype == "int16" else "int32", scales=(0.0005,)
    )
    inputs = (const(shape), weights, T((batch, *size, depth), dtype))
    return Spec(
        "TRANSPOSE_CONV",
        (*inputs, zeros) if bias else inputs,
        (T(shape, dtype),),
        "TransposeConvOptions",
        {"padding": padding, "strideH": stride[0], "strideW": stride[1]},
    )
