"""Versions of TFLite's operators: what a reader has to know to run one.

From tensorflow/lite/tools/versioning/op_version.cc and runtime_version.cc of
https://github.com/tensorflow/tensorflow, for the forms that are written here. A version that is
too high keeps older runtimes from a file they could run; one that is too low is not noticed by
LiteRT, whose kernels know every older one.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgesdk.backends.litert.lower.graph import Op

__all__ = ["oldest_runtime", "version_of"]

#: By operator: the version for float, for int8 and for int16 tensors.
_VERSIONS: dict[str, tuple[int, int, int]] = {
    "ADD": (1, 2, 4),
    "ARG_MAX": (1, 2, 2),
    "ARG_MIN": (1, 2, 2),
    "AVERAGE_POOL_2D": (1, 2, 3),
    "BATCH_MATMUL": (1, 2, 3),
    "BROADCAST_TO": (2, 2, 3),
    "CONCATENATION": (1, 2, 3),
    "CONV_2D": (1, 3, 4),
    "DEPTHWISE_CONV_2D": (1, 3, 5),
    "DEPTH_TO_SPACE": (1, 2, 2),
    "DEQUANTIZE": (1, 2, 3),
    "DIV": (1, 1, 1),
    "EQUAL": (1, 2, 4),
    "EXP": (1, 2, 2),
    "FULLY_CONNECTED": (1, 4, 7),
    "GATHER": (1, 2, 4),
    "GATHER_ND": (1, 2, 3),
    "GELU": (1, 2, 2),
    "GREATER": (1, 2, 2),
    "GREATER_EQUAL": (1, 2, 3),
    "LEAKY_RELU": (1, 2, 2),
    "LESS": (1, 2, 3),
    "LESS_EQUAL": (1, 2, 2),
    "LOG": (1, 2, 2),
    "LOGISTIC": (1, 2, 3),
    "LOG_SOFTMAX": (1, 2, 2),
    "MAXIMUM": (1, 2, 4),
    "MAX_POOL_2D": (1, 2, 3),
    "MEAN": (1, 2, 3),
    "MINIMUM": (1, 2, 4),
    "MIRROR_PAD": (1, 2, 3),
    "MUL": (1, 2, 4),
    "NOT_EQUAL": (1, 2, 4),
    "PACK": (1, 2, 3),
    "PAD": (1, 2, 3),
    "PADV2": (1, 2, 4),
    "QUANTIZE": (1, 1, 2),
    "REDUCE_MAX": (1, 2, 3),
    "REDUCE_MIN": (1, 2, 3),
    "REDUCE_PROD": (1, 2, 2),
    "RELU": (1, 2, 3),
    "RELU6": (1, 2, 3),
    "RELU_N1_TO_1": (1, 1, 1),
    "RESIZE_BILINEAR": (3, 3, 4),
    "RESIZE_NEAREST_NEIGHBOR": (3, 3, 4),
    "REVERSE_V2": (1, 1, 3),
    "SLICE": (1, 2, 4),
    "SOFTMAX": (1, 2, 3),
    "SPACE_TO_DEPTH": (1, 2, 2),
    "SPLIT": (1, 2, 4),
    "SPLIT_V": (1, 2, 2),
    "STRIDED_SLICE": (1, 2, 4),
    "SUB": (1, 2, 5),
    "SUM": (1, 2, 2),
    "TANH": (1, 2, 3),
    "TILE": (1, 3, 3),
    "TOPK_V2": (1, 2, 3),
    "TRANSPOSE": (1, 2, 4),
    "TRANSPOSE_CONV": (3, 3, 3),
    "UNPACK": (1, 2, 3),
}
#: The first runtime with a version of an operator, where that is known and later than 1.14.
_RUNTIMES: dict[tuple[str, int], tuple[int, int]] = {
    ("ADD", 4): (2, 6),
    ("AVERAGE_POOL_2D", 3): (2, 3),
    ("BATCH_MATMUL", 1): (2, 3),
    ("BATCH_MATMUL", 2): (2, 3),
    ("BATCH_MATMUL", 3): (2, 4),
    ("BROADCAST_TO", 2): (2, 5),
    ("BROADCAST_TO", 3): (2, 5),
    ("CONCATENATION", 3): (2, 3),
    ("CONV_2D", 4): (2, 3),
    ("CUMSUM", 1): (2, 4),
    ("DEPTHWISE_CONV_2D", 5): (2, 3),
    ("DEPTH_TO_SPACE", 1): (2, 1),
    ("DEPTH_TO_SPACE", 2): (2, 5),
    ("DEQUANTIZE", 3): (1, 15),
    ("EQUAL", 3): (2, 3),
    ("FULLY_CONNECTED", 7): (2, 3),
    ("GATHER", 4): (2, 4),
    ("GATHER_ND", 2): (2, 3),
    ("GATHER_ND", 3): (2, 5),
    ("HARD_SWISH", 1): (1, 15),
    ("LEAKY_RELU", 2): (2, 3),
    ("LOGISTIC", 3): (2, 3),
    ("MAXIMUM", 4): (2, 3),
    ("MAX_POOL_2D", 3): (2, 3),
    ("MEAN", 3): (2, 4),
    ("MINIMUM", 4): (2, 3),
    ("MIRROR_PAD", 2): (2, 3),
    ("MUL", 4): (2, 3),
    ("PACK", 3): (2, 3),
    ("PAD", 3): (2, 4),
    ("PADV2", 4): (2, 6),
    ("QUANTIZE", 2): (1, 15),
    ("REDUCE_MAX", 3): (2, 5),
    ("REDUCE_MIN", 3): (2, 5),
    ("REDUCE_PROD", 2): (2, 6),
    ("RELU", 2): (2, 1),
    ("RELU", 3): (2, 5),
    ("RELU6", 3): (2, 5),
    ("RESIZE_BILINEAR", 3): (2, 2),
    ("RESIZE_BILINEAR", 4): (2, 5),
    ("RESIZE_NEAREST_NEIGHBOR", 3): (2, 3),
    ("RESIZE_NEAREST_NEIGHBOR", 4): (2, 4),
    ("REVERSE_V2", 3): (2, 5),
    ("SELECT_V2", 1): (2, 2),
    ("SLICE", 4): (2, 4),
    ("SOFTMAX", 3): (2, 3),
    ("SPLIT", 4): (2, 3),
    ("SPLIT_V", 2): (2, 3),
    ("STRIDED_SLICE", 4): (2, 2),
    ("SUB", 5): (2, 4),
    ("SUM", 2): (1, 15),
    ("TANH", 3): (2, 3),
    ("TILE", 3): (2, 8),
    ("TRANSPOSE", 4): (2, 3),
    ("TRANSPOSE_CONV", 3): (2, 3),
    ("UNPACK", 3): (2, 2),
}


def version_of(op: Op) -> int:
    """Give the version of an operator, by the type of what it reads and gives."""
    found = _VERSIONS.get(op.code, (1, 1, 1))
    dtypes = {each.dtype for each in (*op.inputs[:1], *op.outputs[:1]) if each is not None}
    if op.code in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"):
        dtypes = {each.dtype for each in op.inputs[:1] if each is not None}
    if "int16" in dtypes:
        return found[2]
    if "int8" in dtypes:
        return found[1]
    return found[0]


def oldest_runtime(codes: Iterable[tuple[str, int]]) -> str:
    """Give the oldest runtime that knows all of these operators and versions."""
    first = max((_RUNTIMES.get(code, (1, 14)) for code in codes), default=(1, 14))
    return f"{first[0]}.{first[1]}.0"
