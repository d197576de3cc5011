"""Operators in a plain form, which compilers for Ethos-U take as they stand, or could."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.unit.backends.ethos_u.forms.moves import (
    concat,
    gather,
    pack,
    pad,
    reshape,
    resize,
    slice_,
    split,
    split_v,
    strided,
    tile,
    transpose,
    unpack,
)
from tests.unit.backends.ethos_u.forms.numbers import (
    arg_max,
    binary,
    cast,
    fully,
    lstm,
    matmul,
    prelu,
    reduce,
    unary,
)
from tests.unit.backends.ethos_u.forms.windows import conv, depthwise, pool, transpose_conv
from tests.unit.backends.ethos_u.graphs import Spec, T, const

__all__ = [
    "PLAIN",
    "Maker",
    "arg_max",
    "binary",
    "cast",
    "concat",
    "conv",
    "depthwise",
    "fully",
    "gather",
    "lstm",
    "matmul",
    "pack",
    "pad",
    "pool",
    "prelu",
    "reduce",
    "reshape",
    "resize",
    "slice_",
    "split",
    "split_v",
    "strided",
    "tile",
    "transpose",
    "transpose_conv",
    "unary",
    "unpack",
]

Maker = Callable[[], Spec]

#: Forms that a compiler takes as they stand, or could.
PLAIN: dict[str, Maker] = {
    "ABS": lambda: unary("ABS", "AbsOptions"),
    "ADD": lambda: binary("ADD", "AddOptions"),
    "ARG_MAX": arg_max,
    "ARG_MIN": lambda: arg_max("ARG_MIN"),
    "AVERAGE_POOL_2D": lambda: pool("AVERAGE_POOL_2D"),
    "BATCH_MATMUL": matmul,
    "CAST": lambda: cast("int8", "int16"),
    "CONCATENATION": concat,
    "CONV_2D": conv,
    "DEPTHWISE_CONV_2D": depthwise,
    "DEPTH_TO_SPACE": lambda: unary(
        "DEPTH_TO_SPACE", "DepthToSpaceOptions", out=(1, 16, 16, 2), blockSize=2
    ),
    "DEQUANTIZE": lambda: unary("DEQUANTIZE", "DequantizeOptions", out_dtype="float32"),
    "DIV": lambda: binary("DIV", "DivOptions"),
    "ELU": lambda: unary("ELU"),
    "EQUAL": lambda: binary("EQUAL", "EqualOptions", out_dtype="bool"),
    "EXP": lambda: unary("EXP", "ExpOptions"),
    "EXPAND_DIMS": lambda: Spec(
        "EXPAND_DIMS",
        (T((1, 8, 8)), const(np.asarray(0))),
        (T((1, 1, 8, 8)),),
        "ExpandDimsOptions",
    ),
    "FLOOR": lambda: unary("FLOOR", dtype="float32"),
    "FULLY_CONNECTED": fully,
    "GATHER": gather,
    "GELU": lambda: unary("GELU", "GeluOptions"),
    "GREATER": lambda: binary("GREATER", "GreaterOptions", out_dtype="bool"),
    "GREATER_EQUAL": lambda: binary("GREATER_EQUAL", "GreaterEqualOptions", out_dtype="bool"),
    "HARD_SWISH": lambda: unary("HARD_SWISH", "HardSwishOptions"),
    "L2_NORMALIZATION": lambda: unary("L2_NORMALIZATION", "L2NormOptions"),
    "LEAKY_RELU": lambda: unary("LEAKY_RELU", "LeakyReluOptions", alpha=0.1),
    "LESS": lambda: binary("LESS", "LessOptions", out_dtype="bool"),
    "LESS_EQUAL": lambda: binary("LESS_EQUAL", "LessEqualOptions", out_dtype="bool"),
    "LOG": lambda: unary("LOG"),
    "LOGICAL_AND": lambda: binary("LOGICAL_AND", "LogicalAndOptions", dtype="bool"),
    "LOGICAL_NOT": lambda: unary("LOGICAL_NOT", "LogicalNotOptions", dtype="bool"),
    "LOGICAL_OR": lambda: binary("LOGICAL_OR", "LogicalOrOptions", dtype="bool"),
    "LOGISTIC": lambda: unary("LOGISTIC"),
    "LOG_SOFTMAX": lambda: unary("LOG_SOFTMAX", "LogSoftmaxOptions"),
    "MAXIMUM": lambda: binary("MAXIMUM", "MaximumMinimumOptions"),
    "MAX_POOL_2D": pool,
    "MEAN": lambda: reduce("MEAN"),
    "MINIMUM": lambda: binary("MINIMUM", "MaximumMinimumOptions"),
    "MIRROR_PAD": lambda: pad("MIRROR_PAD"),
    "MUL": lambda: binary("MUL", "MulOptions"),
    "NEG": lambda: unary("NEG", "NegOptions"),
    "NOT_EQUAL": lambda: binary("NOT_EQUAL", "NotEqualOptions", out_dtype="bool"),
    "PACK": pack,
    "PAD": pad,
    "PADV2": lambda: pad("PADV2"),
    "POW": lambda: binary("POW", "PowOptions"),
    "PRELU": prelu,
    "QUANTIZE": lambda: unary("QUANTIZE", "QuantizeOptions"),
    "REDUCE_MAX": lambda: reduce("REDUCE_MAX"),
    "REDUCE_MIN": lambda: reduce("REDUCE_MIN"),
    "REDUCE_PROD": lambda: reduce("REDUCE_PROD"),
    "REDUCE_ANY": lambda: reduce("REDUCE_ANY", dtype="bool"),
    "REDUCE_ALL": lambda: reduce("REDUCE_ALL", dtype="bool"),
    "RELU": lambda: unary("RELU"),
    "RELU6": lambda: unary("RELU6"),
    "RELU_0_TO_1": lambda: unary("RELU_0_TO_1"),
    "RELU_N1_TO_1": lambda: unary("RELU_N1_TO_1"),
    "RESHAPE": reshape,
    "RESIZE_BILINEAR": resize,
    "RESIZE_NEAREST_NEIGHBOR": lambda: resize("RESIZE_NEAREST_NEIGHBOR"),
    "REVERSE_V2": lambda: Spec(
        "REVERSE_V2", (T((1, 8, 8, 8)), const([1])), (T((1, 8, 8, 8)),), "ReverseV2Options"
    ),
    "RSQRT": lambda: unary("RSQRT"),
    "SELECT_V2": lambda: Spec(
        "SELECT_V2",
        (T((1, 8, 8, 8), "bool", scales=()), T((1, 8, 8, 8)), T((1, 8, 8, 8))),
        (T((1, 8, 8, 8)),),
        "SelectV2Options",
    ),
    "SELECT": lambda: Spec(
        "SELECT",
        (T((1, 8, 8, 8), "bool", scales=()), T((1, 8, 8, 8)), T((1, 8, 8, 8))),
        (T((1, 8, 8, 8)),),
        "SelectOptions",
    ),
    "SHAPE": lambda: Spec(
        "SHAPE", (T((1, 8, 8, 8)),), (T((4,), "int32", scales=()),), "ShapeOptions"
    ),
    "SLICE": slice_,
    "SOFTMAX": lambda: unary("SOFTMAX", "SoftmaxOptions", beta=1.0),
    "SPACE_TO_DEPTH": lambda: unary(
        "SPACE_TO_DEPTH", "SpaceToDepthOptions", out=(1, 4, 4, 32), blockSize=2
    ),
    "SPLIT": split,
    "SPLIT_V": split_v,
    "SQRT": lambda: unary("SQRT"),
    "SQUARE": lambda: unary("SQUARE", "SquareOptions"),
    "SQUARED_DIFFERENCE": lambda: binary("SQUARED_DIFFERENCE", "SquaredDifferenceOptions"),
    "SQUEEZE": lambda: unary(
        "SQUEEZE", "SqueezeOptions", shape=(1, 1, 8, 8), out=(1, 8, 8), squeezeDims=[1]
    ),
    "STRIDED_SLICE": strided,
    "SUB": lambda: binary("SUB", "SubOptions"),
    "SUM": lambda: reduce("SUM"),
    "TANH": lambda: unary("TANH"),
    "TILE": tile,
    "TRANSPOSE": transpose,
    "TRANSPOSE_CONV": transpose_conv,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": lstm,
    "UNPACK": unpack,
}
