"""Graphs of one operator with parameters by chance: nobody chose them to fit the rules."""

from __future__ import annotations

import random

from tests.unit.backends.ethos_u import forms
from tests.unit.backends.ethos_u.cases import anything
from tests.unit.backends.ethos_u.graphs import Case, Spec

__all__ = ["stray_cases"]

_DTYPES = ("int8", "int8", "int8", "uint8", "int16", "int32")
_UNARY = (
    "ABS", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG",
    "QUANTIZE", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "RSQRT", "SOFTMAX", "SQRT",
    "SQUARE", "TANH",
)  # fmt: skip
_BINARY = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "POW")


def stray_cases(seed: int, count: int) -> list[Case]:
    """Give ``count`` graphs; the same ones for the same seed."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        spec = _stray(rng)
        name = f"stray{number}:{spec.op}"
        if rng.random() < 0.4:
            changed = list(anything(spec))
            what, spec = rng.choice(changed)
            name = f"{name}:{what}"
        found.append(Case(name, spec))
    return found


def _stray(rng: random.Random) -> Spec:
    return rng.choice(_MAKERS)(rng)


def _pair(rng: random.Random, low: int, high: int) -> tuple[int, int]:
    one = rng.randint(low, high)
    return one, one if rng.random() < 0.6 else rng.randint(low, high)


def _shape(rng: random.Random, least: int = 1, most: int = 5) -> tuple[int, ...]:
    rank = rng.randint(least, most)
    return tuple(1 if rng.random() < 0.3 else rng.randint(1, 9) for _ in range(rank))


def _conv(rng: random.Random) -> Spec:
    dilation = _pair(rng, 1, 3) if rng.random() < 0.3 else (1, 1)
    stride = _pair(rng, 1, 6)
    kernel = _pair(rng, 1, 7)
    if rng.random() < 0.5:
        return forms.conv(
            size=_pair(rng, 20, 40),
            depth=rng.randint(1, 20),
            channels=rng.randint(1, 20),
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            padding=rng.randint(0, 1),
            activation=rng.randint(0, 4),
            batch=rng.randint(1, 2),
            dtype=rng.choice(_DTYPES),
            no_bias=rng.random() < 0.2,
        )
    return forms.depthwise(
        size=_pair(rng, 20, 40),
        depth=rng.randint(1, 12),
        multiplier=rng.randint(1, 3),
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=rng.randint(0, 1),
        activation=rng.randint(0, 4),
        batch=rng.randint(1, 2),
        dtype=rng.choice(_DTYPES),
    )


def _pool(rng: random.Random) -> Spec:
    return forms.pool(
        rng.choice(("MAX_POOL_2D", "AVERAGE_POOL_2D")),
        size=_pair(rng, 20, 60),
        depth=rng.randint(1, 12),
        kernel=_pair(rng, 1, 20),
        stride=_pair(rng, 1, 6),
        padding=rng.randint(0, 1),
        batch=rng.randint(1, 2),
        dtype=rng.choice(_DTYPES),
    )


def _dense(rng: random.Random) -> Spec:
    if rng.random() < 0.5:
        lead = _shape(rng, 0, 2)
        inner, rows, columns = rng.randint(1, 30), rng.randint(1, 9), rng.randint(1, 9)
        return forms.matmul(
            (*lead, rows, inner), (*lead, inner, columns), dtype=rng.choice(_DTYPES)
        )
    return forms.fully(
        rows=_shape(rng, 0, 3),
        depth=rng.randint(1, 64),
        channels=rng.randint(1, 30),
        dtype=rng.choice(_DTYPES),
        dynamic=rng.random() < 0.4,
        no_bias=rng.random() < 0.2,
    )


def _grown(rng: random.Random) -> Spec:
    return forms.transpose_conv(
        size=_pair(rng, 1, 9),
        depth=rng.randint(1, 8),
        channels=rng.randint(1, 8),
        kernel=_pair(rng, 1, 5),
        stride=_pair(rng, 1, 3),
        padding=rng.randint(0, 1),
        bias=rng.random() < 0.8,
        dtype=rng.choice(_DTYPES),
    )


def _binary(rng: random.Random) -> Spec:
    plain = forms.PLAIN[rng.choice(_BINARY)]()
    shape = _shape(rng)
    other = tuple(1 if rng.random() < 0.3 else extent for extent in shape)
    return forms.binary(
        plain.op,
        plain.kind,
        shape=shape,
        other=other[rng.randint(0, len(other) - 1) :] if rng.random() < 0.3 else other,
        dtype=rng.choice(_DTYPES),
        constant=rng.random() < 0.3,
    )


def _unary(rng: random.Random) -> Spec:
    plain = forms.PLAIN[rng.choice(_UNARY)]()
    return forms.unary(
        plain.op, plain.kind, shape=_shape(rng), dtype=rng.choice(_DTYPES), **plain.options
    )


def _reduced(rng: random.Random) -> Spec:
    shape = _shape(rng)
    op = rng.choice(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "ARG_MAX"))
    if op == "ARG_MAX":
        deep = (*shape[:-1], rng.randint(1, 200))
        return forms.arg_max(
            shape=deep,
            axis=rng.randint(-1, len(deep) - 1),
            dtype=rng.choice(("int8", "uint8")),
            out_dtype=rng.choice(("int32", "int64")),
        )
    axes = rng.sample(range(len(shape)), rng.randint(1, len(shape)))
    return forms.reduce(
        op, shape=shape, axes=tuple(axes), keep=rng.random() < 0.7, dtype=rng.choice(_DTYPES)
    )


def _resized(rng: random.Random) -> Spec:
    size = _pair(rng, 1, 9)
    by = rng.choice((1, 2, 3, 4, 5, 8, 16))
    align = rng.random() < 0.4
    out = tuple((e - 1) * by + 1 if align and rng.random() < 0.8 else e * by for e in size)
    return forms.resize(
        rng.choice(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")),
        size=size,
        out=(out[0], out[1]),
        depth=rng.randint(1, 8),
        align=align,
        half=rng.random() < 0.3,
        dtype=rng.choice(_DTYPES),
    )


def _moved(rng: random.Random) -> Spec:
    shape = _shape(rng, 2, 5)
    axis = rng.randrange(len(shape))
    dtype = rng.choice(_DTYPES)
    kind = rng.randrange(8)
    if kind == 0:
        return forms.transpose(shape, tuple(rng.sample(range(len(shape)), len(shape))), dtype)
    if kind == 1:
        return forms.concat((shape, shape), axis, dtype)
    if kind == 2:
        doubled = (*shape[:axis], shape[axis] * 2, *shape[axis + 1 :])
        return forms.split(doubled, axis, 2, dtype, said=2 if rng.random() < 0.8 else 1)
    if kind == 3:
        return forms.pad(
            rng.choice(("PAD", "PADV2")),
            shape=shape,
            pads=tuple((rng.randint(0, 2), rng.randint(0, 2)) for _ in shape),
            dtype=dtype,
            pads_dtype=rng.choice(("int32", "int32", "int64")),
        )
    if kind == 4:
        begin = tuple(rng.randint(0, extent - 1) for extent in shape)
        size = tuple(
            rng.randint(1, extent - start) for extent, start in zip(shape, begin, strict=True)
        )
        return forms.slice_(shape, begin, size, dtype)
    if kind == 5:
        steps = tuple(1 if rng.random() < 0.7 else rng.randint(1, 3) for _ in shape)
        return forms.strided(shape, (0,) * len(shape), shape, steps, dtype)
    if kind == 6:
        return forms.tile(shape, tuple(rng.randint(1, 3) for _ in shape), dtype)
    return (forms.pack if rng.random() < 0.5 else forms.unpack)(shape, axis, dtype=dtype)


_MAKERS = (
    _conv, _conv, _pool, _dense, _grown, _binary, _unary, _reduced, _resized, _moved, _moved,
)  # fmt: skip
