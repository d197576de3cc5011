"""Operators with windows or weights, over and across a compiler's limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tests.unit.backends.ethos_u.forms import (
    binary,
    concat,
    conv,
    depthwise,
    fully,
    matmul,
    pool,
    resize,
    transpose_conv,
    unary,
)
from tests.unit.backends.ethos_u.graphs import Spec, const

__all__ = ["dense", "windows"]


def windows() -> Iterator[tuple[str, Spec]]:
    big = (80, 80)
    for stride in (1, 2, 3, 4, 5, 8):
        for padding in (0, 1):
            for dilation in (1, 2, 3):
                tag = f"s{stride}-p{padding}-d{dilation}"
                yield (
                    f"conv-{tag}",
                    conv(
                        size=(33, 33),
                        stride=(stride, stride),
                        padding=padding,
                        dilation=(dilation, dilation),
                    ),
                )
                yield (
                    f"dw-{tag}",
                    depthwise(
                        size=(33, 33),
                        stride=(stride, stride),
                        padding=padding,
                        dilation=(dilation, dilation),
                    ),
                )
            yield (
                f"max-s{stride}-p{padding}",
                pool(size=(33, 33), stride=(stride, stride), padding=padding),
            )
            yield (
                f"avg-s{stride}-p{padding}",
                pool(
                    "AVERAGE_POOL_2D",
                    size=(33, 33),
                    stride=(stride, stride),
                    padding=padding,
                ),
            )
    for strides in ((1, 4), (4, 1), (2, 5), (5, 2), (3, 4), (1, 3), (4, 4)):
        for padding in (0, 1):
            tag = f"{strides[0]}x{strides[1]}-p{padding}"
            yield f"conv-s{tag}", conv(size=(33, 33), stride=strides, padding=padding)
            yield f"dw-s{tag}", depthwise(size=(33, 33), stride=strides, padding=padding)
            yield f"max-s{tag}", pool(size=(33, 33), stride=strides, padding=padding)
            yield (
                f"avg-s{tag}",
                pool("AVERAGE_POOL_2D", size=(33, 33), stride=strides, padding=padding),
            )
    for kernel in (
        (1, 1), (8, 8), (9, 8), (8, 9), (16, 16), (63, 63), (64, 64), (65, 64), (64, 65),
        (65, 1),
        (1, 65), (80, 1), (1, 80), (72, 56),
    ):  # fmt: skip
        for padding in (0, 1):
            tag = f"k{kernel[0]}x{kernel[1]}-p{padding}"
            yield (
                f"conv-{tag}",
                conv(size=big, kernel=kernel, padding=padding, depth=1, channels=2),
            )
            yield f"dw-{tag}", depthwise(size=big, kernel=kernel, padding=padding, depth=2)
            for op in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
                yield (
                    f"{op}-{tag}",
                    pool(op, size=big, kernel=kernel, stride=(1, 1), padding=padding, depth=2),
                )
    for kernel in ((256, 1), (257, 1), (1, 256), (1, 257), (256, 256), (255, 257), (1, 300)):
        for op in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
            for padding in (0, 1):
                yield (
                    f"{op}-big{kernel[0]}x{kernel[1]}-p{padding}",
                    pool(
                        op,
                        size=(300, 300),
                        kernel=kernel,
                        stride=(1, 1),
                        padding=padding,
                        depth=1,
                    ),
                )
    for kernel, dilation in (
        ((3, 3), (32, 32)),
        ((3, 3), (31, 31)),
        ((33, 3), (2, 1)),
        ((3, 33), (1, 2)),
    ):
        yield (
            f"conv-k{kernel}-d{dilation}",
            conv(size=(100, 100), kernel=kernel, dilation=dilation, depth=1, channels=2),
        )
        yield (
            f"dw-k{kernel}-d{dilation}",
            depthwise(size=(100, 100), kernel=kernel, dilation=dilation, depth=2),
        )
    for batch in (1, 2, 4):
        yield f"conv-b{batch}", conv(batch=batch)
        yield f"dw-b{batch}", depthwise(batch=batch)
        yield f"max-b{batch}", pool(batch=batch)
        yield f"avg-b{batch}", pool("AVERAGE_POOL_2D", batch=batch)
        yield f"tconv-b{batch}", transpose_conv(batch=batch)
        yield f"resize-b{batch}", resize(batch=batch)
    for activation in range(6):
        yield f"conv-a{activation}", conv(activation=activation)
        yield f"dw-a{activation}", depthwise(activation=activation)
        yield f"max-a{activation}", pool(activation=activation)
        yield f"avg-a{activation}", pool("AVERAGE_POOL_2D", activation=activation)
        yield f"fc-a{activation}", fully(activation=activation)
        yield f"concat-a{activation}", concat(activation=activation)
    for multiplier in (1, 2, 3, 8):
        yield f"dw-m{multiplier}", depthwise(multiplier=multiplier)
        yield f"dw1-m{multiplier}", depthwise(depth=1, multiplier=multiplier)
    for groups in (2, 4):
        yield f"conv-g{groups}", conv(groups=groups)
    for weight in (127, 64, -128):
        # sums of 8 bits pass 127 * 65536 at this depth
        yield f"conv-w{weight}", conv(kernel=(8, 8), depth=1200, channels=2, weight=weight)
        yield (
            f"conv16-w{weight}",
            conv(kernel=(8, 8), depth=1200, channels=2, weight=weight, dtype="int16"),
        )
        yield f"fc-w{weight}", fully(depth=70000, channels=2, weight=weight)
    for depth in (65535, 65536, 65537):
        yield f"conv-depth{depth}", conv(size=(1, 1), kernel=(1, 1), depth=depth, channels=2)
        yield f"conv-channels{depth}", conv(size=(1, 1), kernel=(1, 1), depth=2, channels=depth)
        yield f"dw-depth{depth}", depthwise(size=(1, 1), kernel=(1, 1), depth=depth)
        yield f"fc-depth{depth}", fully(depth=depth, channels=2)
        yield f"fc-channels{depth}", fully(depth=2, channels=depth)
        yield f"relu-depth{depth}", unary("RELU", shape=(1, 1, 1, depth))
        yield f"add-width{depth}", binary("ADD", "AddOptions", shape=(1, 1, depth, 1))
        yield f"max-width{depth}", pool(size=(1, depth), kernel=(1, 1), stride=(1, 1), depth=1)
    for values in (1 << 31, 1 << 38, 1 << 39, (1 << 40) - 2, (1 << 40) - 1, 1 << 41, 1 << 46):
        bias = const(np.full(8, values), "int64", scales=(0.0005,))
        yield f"conv16-bias{values}", conv(dtype="int16", bias=bias)
        yield (
            f"conv16-bias-{values}",
            conv(dtype="int16", bias=replace(bias, values=-bias.values)),
        )
    for dtype in ("int8", "int16", "int64", "float32"):
        for maps in ("int8", "int16"):
            bias = const(np.zeros(8), dtype, scales=(0.0005,))
            yield f"conv-{maps}-bias-{dtype}", conv(dtype=maps, bias=bias)
    yield "conv-bias-2d", conv(bias=const(np.zeros((1, 8)), "int32", scales=(0.0005,)))
    yield "conv-bias-4d", conv(bias=const(np.zeros((1, 1, 1, 8)), "int32", scales=(0.0005,)))
    yield "conv-bias-col", conv(bias=const(np.zeros((8, 1)), "int32", scales=(0.0005,)))
    yield "conv-no-bias", conv(no_bias=True)
    for dtype in ("int16", "uint8", "float32"):
        for name, made in (("conv", conv()), ("dw", depthwise()), ("fc", fully())):
            yield f"{name}-weights-{dtype}", made.with_input(1, dtype=dtype)
    for name, made in (("conv", conv()), ("dw", depthwise()), ("fc", fully())):
        shape = made.inputs[1].shape  # type: ignore[union-attr]  # a plain form has weights
        axis = 3 if name == "dw" else 0
        scales = tuple(0.01 + 0.001 * i for i in range(shape[axis]))
        yield f"{name}-per-channel", made.with_input(1, scales=scales, axis=axis)
        yield f"{name}-weights-zp", made.with_input(1, zeros=(3,))
        yield f"{name}-no-weight-grid", made.with_input(1, scales=())
    for stride in ((1, 1), (2, 2), (2, 1), (1, 2), (3, 3), (4, 4), (2, 3)):
        for kernel in ((1, 1), (2, 2), (3, 3), (4, 4), (1, 3), (3, 1), (5, 5)):
            for padding in (0, 1):
                for size in ((8, 8), (1, 8), (8, 1)):
                    yield (
                        f"tconv-s{stride}-k{kernel}-p{padding}-{size}",
                        transpose_conv(
                            stride=stride, kernel=kernel, padding=padding, size=size
                        ),
                    )
    yield "tconv-short", transpose_conv(out=(15, 15))
    yield "tconv-short-valid", transpose_conv(out=(15, 15), padding=1)
    yield "tconv-no-bias", transpose_conv(bias=False)
    yield "tconv-uneven", transpose_conv(kernel=(3, 3), out=(15, 16))
    yield "tconv-valid-17", transpose_conv(kernel=(3, 3), padding=1, out=(17, 17))
    yield "tconv-valid-18", transpose_conv(kernel=(3, 3), padding=1, out=(18, 18))
    yield "tconv-w16", transpose_conv(dtype="int16")
    for dtype in ("int16", "uint8"):
        yield f"tconv-weights-{dtype}", transpose_conv().with_input(1, dtype=dtype)


def dense() -> Iterator[tuple[str, Spec]]:
    for rows in ((1,), (4,), (2, 3), (1, 4, 4), (), (2, 3, 4, 5)):
        yield f"fc-rows{rows}", fully(rows=rows)
        yield f"fc-flat-rows{rows}", fully(rows=rows, keep=False)
        yield f"fc-open-rows{rows}", fully(rows=rows, dynamic=True)
        yield f"fc16-rows{rows}", fully(rows=rows, dtype="int16")
    yield "fc-4d-weights", fully(weight_shape=(16, 1, 1, 32))
    yield "fc-3d-weights", fully(weight_shape=(16, 2, 16))
    yield "fc-open-4d", fully(weight_shape=(16, 1, 1, 32), dynamic=True)
    yield "fc-open-16", fully(dynamic=True, dtype="int16")
    yield "fc-open-u8", fully(dynamic=True, dtype="uint8").with_input(1, dtype="uint8")
    yield "fc-no-bias", fully(no_bias=True)
    yield "fc-open-no-bias", fully(no_bias=True, dynamic=True)
    yield "fc-open-big", fully(dynamic=True, depth=70000, channels=2)
    yield "fc-open-wide", fully(dynamic=True, depth=2, channels=70000)
    yield "fc-out16", fully().with_outputs(dtype="int16")
    yield "fc-out32", fully().with_outputs(dtype="int32")
    for adj_x in (False, True):
        for adj_y in (False, True):
            shape = (1, 16, 8) if adj_x else (1, 8, 16)
            other = (1, 4, 16) if adj_y else (1, 16, 4)
            yield f"bmm-{adj_x}-{adj_y}", matmul(shape, other, adj_x, adj_y)
            yield f"bmm16-{adj_x}-{adj_y}", matmul(shape, other, adj_x, adj_y, dtype="int16")
    for lead in ((), (2,), (1, 2), (2, 3), (1, 1, 2), (2, 2, 2)):
        yield f"bmm-lead{lead}", matmul((*lead, 8, 16), (*lead, 16, 8))
        yield f"bmm-const-lead{lead}", matmul((*lead, 8, 16), (*lead, 16, 8), constant=True)
    yield "bmm-broadcast", matmul((2, 8, 16), (1, 16, 8))
    yield "bmm-rank", matmul((2, 8, 16), (16, 8))
    yield "bmm-deep", matmul((1, 1, 65537), (1, 65537, 2))
    yield "bmm-wide", matmul((1, 1, 2), (1, 2, 65537))
    yield "bmm-wide-ok", matmul((1, 1, 2), (1, 2, 65536))
