"""Elementwise operators and reductions, over and across a compiler's limits."""

from __future__ import annotations

from collections.abc import Iterator

from tests.unit.backends.ethos_u.forms import PLAIN, arg_max, binary, cast, reduce, unary
from tests.unit.backends.ethos_u.graphs import Spec

__all__ = ["elementwise", "reductions"]


def elementwise() -> Iterator[tuple[str, Spec]]:
    kinds = {
        "ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions",
        "MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions",
        "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
        "EQUAL": "EqualOptions", "GREATER": "GreaterOptions",
    }  # fmt: skip
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((1, 8, 8, 8), (1, 1, 1, 8)), ((1, 8, 8, 8), (8,)), ((1, 8, 8, 8), ()),
        ((1, 8, 8, 8), (1, 8, 8, 1)), ((1, 1, 8, 8), (1, 8, 1, 8)),
        ((2, 8, 8, 8), (2, 8, 8, 8)),
        ((2, 8, 8, 8), (1, 8, 8, 8)), ((8,), (8,)), ((4, 8), (4, 8)), ((4, 8), (1, 8)),
        ((2, 2, 4, 4, 4), (2, 2, 4, 4, 4)), ((2, 2, 4, 4, 4), (4,)),
        ((1, 2, 4, 4, 4), (1, 1, 4, 4, 4)),
        ((2, 1, 4, 4, 4), (1, 2, 4, 4, 4)), ((2,) * 6, (2,) * 6), ((), ()),
        ((1, 2, 3, 4, 2, 2), (2,)),
    ]  # fmt: skip
    for op, kind in kinds.items():
        out = "bool" if op in ("EQUAL", "GREATER") else None
        for shape, other in shapes:
            yield (
                f"{op}-{shape}-{other}",
                binary(op, kind, shape=shape, other=other, out_dtype=out),
            )
        yield (
            f"{op}-constant",
            binary(op, kind, other=(1, 1, 1, 8), constant=True, out_dtype=out),
        )
        yield f"{op}-scalar", binary(op, kind, other=(), constant=True, out_dtype=out)
        if op in ("ADD", "SUB", "MUL", "DIV"):
            for activation in range(1, 6):
                made = binary(op, kind, fusedActivationFunction=activation)
                yield f"{op}-a{activation}", made
        for dtype in ("int16", "int32", "uint8"):
            yield f"{op}-{dtype}-8", binary(op, kind, dtype=dtype, out_dtype="int8")
            yield f"{op}-8-{dtype}", binary(op, kind, out_dtype=dtype)
            mixed = binary(op, kind, out_dtype=out)
            yield f"{op}-mixed-{dtype}", mixed.with_input(1, dtype=dtype)
        yield (
            f"{op}-constant-no-grid",
            binary(op, kind, other=(1, 1, 1, 8), constant=True, out_dtype=out).with_input(
                1, scales=()
            ),
        )
        for dtype in ("int32", "int64"):
            yield (
                f"{op}-{dtype}-no-grid",
                binary(op, kind, dtype=dtype, out_dtype=out).with_maps(scales=()),
            )
    for op in (
        "RELU", "RELU6", "LOGISTIC", "TANH", "ABS", "EXP", "LOG", "ELU", "GELU", "HARD_SWISH",
        "LEAKY_RELU", "RSQRT", "NEG", "SQRT", "QUANTIZE", "SOFTMAX", "RELU_N1_TO_1",
        "RELU_0_TO_1",
    ):  # fmt: skip
        kind = PLAIN[op]().kind
        for shape in (
            (),
            (8,),
            (4, 8),
            (2, 4, 8),
            (2, 8, 8, 8),
            (1, 2, 4, 4, 8),
            (2, 2, 2, 2, 2, 2),
        ):
            yield f"{op}-{shape}", unary(op, kind, shape=shape)
        yield f"{op}-shape", unary(op, kind, shape=(1, 8, 8, 8), out=(1, 64, 8))
        for source in ("int8", "uint8", "int16", "int32"):
            for wanted in ("int8", "uint8", "int16", "int32"):
                made = unary(op, kind, dtype=source, out_dtype=wanted)
                yield f"{op}-{source}-{wanted}", made
    for alpha in (-0.5, 0.0, 0.3, 1.0, 2.0):
        yield f"leaky-{alpha}", unary("LEAKY_RELU", "LeakyReluOptions", alpha=alpha)
        yield (
            f"leaky16-{alpha}",
            unary("LEAKY_RELU", "LeakyReluOptions", alpha=alpha, dtype="int16"),
        )
    for beta in (-1.0, 0.0, 0.5, 2.0):
        yield f"softmax-beta{beta}", unary("SOFTMAX", "SoftmaxOptions", beta=beta)
    for shape in (
        (1, 256, 255, 2), (1, 256, 256, 2), (1, 65535, 1, 2), (65536, 2), (65535, 2),
        (300, 300, 2),
        (1, 10000), (1, 70000),
    ):  # fmt: skip
        for dtype in ("int8", "int16"):
            made = unary("SOFTMAX", "SoftmaxOptions", shape=shape, dtype=dtype, beta=1.0)
            yield f"softmax-{dtype}-{shape}", made
    for source in ("int8", "uint8", "int16", "int32", "int64", "float32", "bool"):
        for wanted in ("int8", "uint8", "int16", "int32", "int64", "float32", "bool"):
            yield f"cast-{source}-{wanted}", cast(source, wanted)
            yield f"cast-{source}-{wanted}-no-grid", cast(source, wanted).with_maps(scales=())
            yield (
                f"quantize-{source}-{wanted}",
                unary("QUANTIZE", "QuantizeOptions", dtype=source, out_dtype=wanted),
            )
            yield (
                f"dequantize-{source}-{wanted}",
                unary("DEQUANTIZE", "DequantizeOptions", dtype=source, out_dtype=wanted),
            )


def reductions() -> Iterator[tuple[str, Spec]]:
    ops = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")
    axes: list[tuple[int, ...]] = [
        (1,), (2,), (3,), (1, 2), (2, 1), (1, 3), (2, 3), (1, 2, 3), (-1,), (-2, -3), (0,),
        (0, 1),
        (0, 1, 2, 3),
    ]  # fmt: skip
    for op in ops:
        for one in axes:
            for shape in ((1, 8, 8, 8), (2, 8, 8, 8), (1, 1, 8, 8), (1, 8, 1, 8), (1, 8, 8, 1)):
                yield f"{op}-{one}-{shape}", reduce(op, shape=shape, axes=one)
            yield f"{op}-{one}-flat", reduce(op, axes=one, keep=False)
        for shape in (
            (8,),
            (4, 8),
            (1, 8),
            (2, 4, 8),
            (1, 4, 8),
            (1, 2, 4, 4, 8),
            (2, 2, 4, 4, 8),
        ):
            for axis in range(len(shape)):
                yield f"{op}-{shape}-{axis}", reduce(op, shape=shape, axes=(axis,))
        for dtype in ("uint8", "int16", "int32"):
            for one in ((1, 2), (3,)):
                yield f"{op}-{dtype}-{one}", reduce(op, axes=one, dtype=dtype)
    for shape in (
        (1, 4095, 1, 1), (1, 4096, 1, 1), (1, 1, 4096, 1), (1, 64, 64, 1), (1, 65, 64, 1),
        (1, 256, 256, 1), (1, 257, 256, 1), (1, 512, 512, 1), (1, 1024, 1024, 1),

        (1, 4095, 17, 1),
    ):  # fmt: skip
        for dtype in ("int8", "uint8", "int16"):
            yield f"mean-{shape}-{dtype}", reduce("MEAN", shape=shape, axes=(1, 2), dtype=dtype)
        yield f"sum-{shape}", reduce("SUM", shape=shape, axes=(1, 2))
        yield f"rmax-{shape}", reduce("REDUCE_MAX", shape=shape, axes=(1, 2))
    for dtype in ("uint8", "int16"):
        # of 8 bits with signs these fit, and take the compiler minutes
        for shape in ((1, 2900, 2900, 1), (1, 4095, 4095, 1)):
            yield f"mean-{shape}-{dtype}", reduce("MEAN", shape=shape, axes=(1, 2), dtype=dtype)
    for depth in (127, 128, 129, 4095, 4096, 65536, 65537):
        yield f"mean-depth{depth}", reduce("MEAN", shape=(1, 1, 1, depth), axes=(3,))
        yield f"sum-depth{depth}", reduce("SUM", shape=(1, 1, 1, depth), axes=(3,))
        yield f"rmax-depth{depth}", reduce("REDUCE_MAX", shape=(1, 1, 1, depth), axes=(3,))
        yield f"argmax-depth{depth}", arg_max(shape=(1, 2, 2, depth))
    for shape in ((16,), (4, 16), (2, 4, 16), (1, 4, 16), (2, 4, 4, 16), (1, 2, 4, 4, 16)):
        for axis in range(len(shape)):
            yield f"argmax-{shape}-{axis}", arg_max(shape=shape, axis=axis)
        yield f"argmax-{shape}-last", arg_max(shape=shape, axis=-1)
    for dtype in ("int8", "uint8", "int16", "int32", "float32"):
        for out in ("int32", "int64"):
            yield f"argmax-{dtype}-{out}", arg_max(dtype=dtype, out_dtype=out)
            yield (
                f"argmax-{dtype}-{out}-grid",
                arg_max(dtype=dtype, out_dtype=out).with_outputs(scales=(1.0,)),
            )
