"""Operators that compute number by number, or sum them up, in a plain form."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.unit.backends.ethos_u.graphs import TYPES, Spec, T, const


def fully(
    *,
    rows: tuple[int, ...] = (1,),
    depth: int = 32,
    channels: int = 16,
    dtype: str = "int8",
    weight: int = 1,
    dynamic: bool = False,
    weight_shape: tuple[int, ...] | None = None,
    activation: int = 0,
    no_bias: bool = False,
    keep: bool = True,
) -> Spec:
    """FULLY_CONNECTED."""
    shape = weight_shape or (channels, depth)
    weights = (
        T(shape, "int8") if dynamic else const(np.full(shape, weight), "int8", scales=(0.01,))
    )
    bias = const(np.zeros(channels), "int64" if dtype == "int16" else "int32", scales=(0.0005,))
    return Spec(
        "FULLY_CONNECTED",
        (T((*rows, depth), dtype), weights, None if no_bias else bias),
        (T((*rows, channels), dtype),),
        "FullyConnectedOptions",
        {"fusedActivationFunction": activation, "keepNumDims": keep},
    )


def binary(
    op: str,
    kind: str = "",
    *,
    shape: tuple[int, ...] = (1, 8, 8, 8),
    other: tuple[int, ...] | None = None,
    out: tuple[int, ...] | None = None,
    dtype: str = "int8",
    out_dtype: str | None = None,
    constant: bool = False,
    **options: Any,
) -> Spec:
    """An operator of two inputs."""
    other = shape if other is None else other
    given = np.broadcast_shapes(shape, other) if out is None else out
    second = T(other, dtype)
    if constant:
        second = const(np.ones(other), dtype, scales=(0.05,))
    return Spec(
        op,
        (T(shape, dtype), second),
        (T(tuple(given), out_dtype or dtype),),
        kind,
        options,
    )


def unary(
    op: str,
    kind: str = "",
    *,
    shape: tuple[int, ...] = (1, 8, 8, 8),
    dtype: str = "int8",
    out_dtype: str | None = None,
    out: tuple[int, ...] | None = None,
    **options: Any,
) -> Spec:
    """An operator of one input."""
    return Spec(
        op,
        (T(shape, dtype),),
        (T(shape if out is None else out, out_dtype or dtype),),
        kind,
        options,
    )


def reduce(
    op: str,
    *,
    shape: tuple[int, ...] = (1, 8, 8, 8),
    axes: tuple[int, ...] = (1, 2),
    keep: bool = True,
    dtype: str = "int8",
) -> Spec:
    """MEAN, SUM and their kin."""
    gone = {axis % len(shape) for axis in axes}
    out = tuple(
        1 if axis in gone else extent
        for axis, extent in enumerate(shape)
        if keep or axis not in gone
    )
    return Spec(
        op,
        (T(shape, dtype), const(list(axes))),
        (T(out, dtype),),
        "ReducerOptions",
        {"keepDims": keep},
    )


def arg_max(
    op: str = "ARG_MAX",
    shape: tuple[int, ...] = (1, 8, 8, 16),
    axis: int = 3,
    dtype: str = "int8",
    out_dtype: str = "int32",
) -> Spec:
    """ARG_MAX and ARG_MIN."""
    out = tuple(e for position, e in enumerate(shape) if position != axis % len(shape))
    kind = "ArgMaxOptions" if op == "ARG_MAX" else "ArgMinOptions"
    return Spec(
        op,
        (T(shape, dtype), const(np.asarray(axis))),
        (T(out, out_dtype, scales=()),),
        kind,
        {"outputType": TYPES[out_dtype]},
    )


def matmul(
    shape: tuple[int, ...] = (1, 8, 16),
    other: tuple[int, ...] = (1, 16, 8),
    adj_x: bool = False,
    adj_y: bool = False,
    dtype: str = "int8",
    constant: bool = False,
) -> Spec:
    """BATCH_MATMUL."""
    rows = shape[-1] if adj_x else shape[-2]
    columns = other[-2] if adj_y else other[-1]
    second = const(np.ones(other), dtype, scales=(0.05,)) if constant else T(other, dtype)
    return Spec(
        "BATCH_MATMUL",
        (T(shape, dtype), second),
        (T((*shape[:-2], rows, columns), dtype),),
        "BatchMatMulOptions",
        {"adjX": adj_x, "adjY": adj_y},
    )


def cast(source: str, wanted: str, shape: tuple[int, ...] = (1, 8, 8, 8)) -> Spec:
    """CAST."""
    return Spec(
        "CAST",
        (T(shape, source),),
        (T(shape, wanted),),
        "CastOptions",
        {"inDataType": TYPES[source], "outDataType": TYPES[wanted]},
    )


def lstm(
    *,
    batch: int = 1,
    steps: int = 4,
    depth: int = 8,
    cells: int = 8,
    without: tuple[int, ...] = (),
    peephole: bool = False,
    projection: bool = False,
    norm: bool = False,
    time_major: bool = False,
    dtype: str = "int8",
) -> Spec:
    """UNIDIRECTIONAL_SEQUENCE_LSTM, of 8 bits with a cell state of 16."""

    def weights(shape: tuple[int, ...]) -> T:
        return const(np.ones(shape), "int8", scales=(0.01,))

    def bias() -> T:
        return const(np.zeros(cells), "int32", scales=(0.0001,))

    shape = (steps, batch, depth) if time_major else (batch, steps, depth)
    inputs: list[T | None] = [T(shape, dtype)]
    inputs += [weights((cells, depth)) for _ in range(4)]
    inputs += [weights((cells, cells)) for _ in range(4)]
    peep = const(np.ones(cells), "int16", scales=(0.001,))
    inputs += [peep if peephole else None] * 3
    inputs += [bias() for _ in range(4)]
    inputs += [weights((cells, cells)), bias()] if projection else [None, None]
    inputs += [T((batch, cells), dtype, is_variable=True)]
    inputs += [T((batch, cells), "int16", scales=(2.0**-11,), is_variable=True)]
    inputs += [const(np.ones(cells), "int16", scales=(0.001,)) if norm else None] * 4
    for position in without:
        inputs[position] = None
    out = (steps, batch, cells) if time_major else (batch, steps, cells)
    return Spec(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        tuple(inputs),
        (T(out, dtype),),
        "UnidirectionalSequenceLSTMOptions",
        {"fusedActivationFunction": 4, "cellClip": 10.0, "timeMajor": time_major},
        (*(T((1,), "int16", scales=(2.0**-12,)) for _ in range(4)), T((1,), dtype)),
    )


def prelu(
    shape: tuple[int, ...] = (1, 8, 8, 8),
    slopes: tuple[int, ...] = (1, 1, 8),
    dtype: str = "int8",
    constant: bool = True,
) -> Spec:
    """PRELU."""
    second = const(np.full(slopes, 3), dtype, scales=(0.01,)) if constant else T(slopes, dtype)
    return Spec("PRELU", (T(shape, dtype), second), (T(shape, dtype),))
