"""One line or so for every operator of TFLite that is converted."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.unit.importers.tflite_files import Case, Weights

__all__ = ["CASES"]

IMAGE = (1, 8, 6, 4)
ROWS = (3, 8)
_RANDOM = np.random.default_rng(7)
_SAME, _VALID = 0, 1
_RELU, _N1, _RELU6 = 1, 2, 3


def normal(*shape: int) -> np.ndarray:
    return (0.4 * _RANDOM.normal(size=shape)).astype("f4")


def ints(*numbers: Any) -> np.ndarray:
    return np.array(numbers, np.int32)


def window(kind: str, padding: int, stride: int = 1, **fields: int) -> tuple[str, Any]:
    return kind, {"padding": padding, "strideH": stride, "strideW": stride, **fields}


def one(
    code: str,
    shape: tuple[int, ...] = IMAGE,
    options: Any = None,
    span: Any = None,
) -> Case:
    return Case(code, (shape,), (shape,), options, span)


def two(code: str, span: Any = None, fields: Any = None) -> Case:
    """An operator of two inputs, one of which is broadcast along the channels."""
    kind = "".join(part.title() for part in code.split("_")) + "Options"
    return Case(code, (IMAGE, (4,)), (IMAGE,), (kind, fields or {}), span)


def truth(code: str) -> Case:
    kind = "".join(part.title() for part in code.split("_")) + "Options"
    return Case(code, (IMAGE, (1, 8, 6, 1)), (IMAGE,), (kind, {}), "same", ("bool",))


def reduce_(code: str, axes: np.ndarray, out: tuple[int, ...], keep: bool, span: Any) -> Case:
    return Case(code, (IMAGE, axes), (out,), ("ReducerOptions", {"keepDims": keep}), span)


def resize(code: str, out: tuple[int, int], *, corners: bool, half: bool) -> Case:
    kind = "ResizeBilinear" if "BILINEAR" in code else "ResizeNearestNeighbor"
    fields = {"alignCorners": corners, "halfPixelCenters": half}
    shape = (1, *out, 4)
    return Case(code, (IMAGE, ints(*out)), (shape,), (f"{kind}Options", fields), "same")


def strided(bounds: tuple[Any, Any, Any], out: tuple[int, ...], **masks: int) -> Case:
    names = ("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask")
    fields = {name: masks.get(name, 0) for name in names}
    inputs = (IMAGE, *(ints(*each) for each in bounds))
    return Case("STRIDED_SLICE", inputs, (out,), ("StridedSliceOptions", fields), "same")


_K3, _B6 = Weights(normal(6, 3, 3, 4), 0), Weights(normal(6), 0)
_K5 = Weights(normal(8, 5, 2, 4), 0)
_D3, _B4 = Weights(normal(1, 3, 3, 4), 3), Weights(normal(4), 3)
_DEEP = Weights(normal(1, 3, 3, 8), 3)
_F8 = Weights(normal(5, 8))
_T3 = Weights(normal(6, 3, 3, 4), 0)
_WIDE = (-6.0, 6.0)
CASES: dict[str, Case] = {
    # windows
    "conv, same": Case(
        "CONV_2D",
        (IMAGE, _K3, _B6),
        ((1, 8, 6, 6),),
        window("Conv2DOptions", _SAME, fusedActivationFunction=_RELU),
        _WIDE,
    ),
    "conv, strides": Case(
        "CONV_2D",
        (IMAGE, _K3, _B6),
        ((1, 4, 3, 6),),
        window("Conv2DOptions", _SAME, 2, fusedActivationFunction=_RELU6),
        _WIDE,
    ),
    "conv, uneven": Case(
        "CONV_2D",
        (IMAGE, _K5, Weights(normal(8), 0)),
        ((1, 4, 5, 8),),
        window("Conv2DOptions", _VALID),
        _WIDE,
    ),
    "conv, dilated": Case(
        "CONV_2D",
        (IMAGE, _K3, _B6),
        ((1, 4, 2, 6),),
        window("Conv2DOptions", _VALID, dilationHFactor=2, dilationWFactor=2),
        _WIDE,
    ),
    "conv, groups": Case(
        "CONV_2D",
        (IMAGE, Weights(normal(6, 3, 3, 2), 0), _B6),
        ((1, 8, 6, 6),),
        window("Conv2DOptions", _SAME),
        _WIDE,
    ),
    "depthwise": Case(
        "DEPTHWISE_CONV_2D",
        (IMAGE, _D3, _B4),
        ((1, 8, 6, 4),),
        window("DepthwiseConv2DOptions", _SAME, depthMultiplier=1),
        _WIDE,
    ),
    "depthwise, two each": Case(
        "DEPTHWISE_CONV_2D",
        (IMAGE, _DEEP, Weights(normal(8), 3)),
        ((1, 4, 3, 8),),
        window("DepthwiseConv2DOptions", _SAME, 2, depthMultiplier=2),
        _WIDE,
    ),
    "conv, volume": Case(
        "CONV_3D",
        ((1, 4, 4, 4, 2), Weights(normal(2, 3, 3, 2, 3))),
        ((1, 4, 2, 2, 3),),
        (
            "Conv3DOptions",
            {"padding": _SAME, "strideD": 1, "strideH": 2, "strideW": 2},
        ),
    ),
    "transposed, same": Case(
        "TRANSPOSE_CONV",
        (ints(1, 16, 12, 6), _T3, IMAGE),
        ((1, 16, 12, 6),),
        window("TransposeConvOptions", _SAME, 2),
        _WIDE,
    ),
    "transposed, valid": Case(
        "TRANSPOSE_CONV",
        (ints(1, 17, 13, 6), _T3, IMAGE, _B6),
        ((1, 17, 13, 6),),
        window("TransposeConvOptions", _VALID, 2),
        _WIDE,
    ),
    "average pool": Case(
        "AVERAGE_POOL_2D",
        (IMAGE,),
        ((1, 4, 3, 4),),
        window("Pool2DOptions", _SAME, 2, filterHeight=3, filterWidth=3),
        "same",
    ),
    "max pool": Case(
        "MAX_POOL_2D",
        (IMAGE,),
        ((1, 7, 5, 4),),
        window("Pool2DOptions", _VALID, 1, filterHeight=2, filterWidth=2),
        "same",
    ),
    "l2 pool": Case(
        "L2_POOL_2D",
        (IMAGE,),
        ((1, 4, 3, 4),),
        window("Pool2DOptions", _SAME, 2, filterHeight=2, filterWidth=2),
    ),
    # products
    "fully connected": Case(
        "FULLY_CONNECTED",
        (ROWS, _F8, Weights(normal(5))),
        ((3, 5),),
        ("FullyConnectedOptions", {"fusedActivationFunction": _RELU}),
        _WIDE,
    ),
    "fully connected, by channel": Case(
        "FULLY_CONNECTED",
        (ROWS, Weights(_F8.array, 0), Weights(normal(5), 0)),
        ((3, 5),),
        ("FullyConnectedOptions", {}),
        _WIDE,
    ),
    "fully connected, flattening": Case(
        "FULLY_CONNECTED",
        (IMAGE, Weights(normal(5, 192)), Weights(normal(5))),
        ((1, 5),),
        ("FullyConnectedOptions", {}),
        (-30.0, 30.0),
    ),
    "fully connected, keeping axes": Case(
        "FULLY_CONNECTED",
        (IMAGE, Weights(normal(5, 4)), Weights(normal(5))),
        ((1, 8, 6, 5),),
        ("FullyConnectedOptions", {"keepNumDims": True}),
        _WIDE,
    ),
    "matrices": Case(
        "BATCH_MATMUL",
        ((2, 3, 8), (2, 5, 8)),
        ((2, 3, 5),),
        ("BatchMatMulOptions", {"adjY": True}),
        (-30.0, 30.0),
    ),
    "embedding": Case(
        "EMBEDDING_LOOKUP",
        ((3,), Weights(normal(6, 4))),
        ((3, 4),),
        given="int32",
        dtypes=("float32",),
    ),
    # elementwise
    **{
        code.lower(): two(code, span, {"fusedActivationFunction": _RELU} if at == 0 else None)
        for at, (code, span) in enumerate(
            [("ADD", _WIDE), ("SUB", _WIDE), ("MUL", (-9.0, 9.0))]
        )
    },
    "div": two("DIV"),
    "maximum": Case("MAXIMUM", (IMAGE, (4,)), (IMAGE,), ("MaximumMinimumOptions", {}), "same"),
    "minimum by a constant": Case(
        "MINIMUM",
        (IMAGE, Weights(np.array([0.5, -0.2, 0.1, 0.9], "f4"))),
        (IMAGE,),
        ("MaximumMinimumOptions", {}),
    ),
    "add, two pictures": Case(
        "ADD",
        (IMAGE, IMAGE),
        (IMAGE,),
        ("AddOptions", {"fusedActivationFunction": _N1}),
        _WIDE,
    ),
    "pow": Case("POW", (IMAGE, Weights(np.array(2.0, "f4"))), (IMAGE,), ("PowOptions", {})),
    "squared difference": two("SQUARED_DIFFERENCE", (0.0, 36.0)),
    "floor div": two("FLOOR_DIV"),
    "floor mod": two("FLOOR_MOD"),
    "floor div, whole": Case(
        "FLOOR_DIV",
        (ROWS, ints(2, -3, 1, 5, 7, -1, 3, 2)),
        (ROWS,),
        given="int32",
        dtypes=("int32",),
    ),
    "floor mod, whole": Case(
        "FLOOR_MOD",
        (ROWS, ints(2, -3, 1, 5, 7, -1, 3, 2)),
        (ROWS,),
        given="int32",
        dtypes=("int32",),
    ),
    "add n": Case("ADD_N", (IMAGE, IMAGE, IMAGE), (IMAGE,), ("AddNOptions", {})),
    **{
        code.lower(): truth(code)
        for code in ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")
    },
    "logical and": Case("LOGICAL_AND", (ROWS, ROWS), (ROWS,), given="bool", dtypes=("bool",)),
    "logical or": Case("LOGICAL_OR", (ROWS, ROWS), (ROWS,), given="bool", dtypes=("bool",)),
    "logical not": Case("LOGICAL_NOT", (ROWS,), (ROWS,), given="bool", dtypes=("bool",)),
    "select": Case(
        "SELECT_V2",
        (np.arange(48).reshape(1, 8, 6, 1) % 3 == 0, IMAGE, IMAGE),
        (IMAGE,),
        ("SelectV2Options", {}),
        "same",
    ),
    "select rows": Case(
        "SELECT", (np.array([True, False, True]), ROWS, ROWS), (ROWS,), ("SelectOptions", {})
    ),
    "relu": one("RELU", span=(0.0, 3.0)),
    "relu6": one("RELU6", span=(0.0, 6.0)),
    "relu n1": one("RELU_N1_TO_1"),
    "relu 01": one("RELU_0_TO_1"),
    "logistic": one("LOGISTIC", span=(0.0, 255 / 256)),
    "tanh": one("TANH", span=(-1.0, 127 / 128)),
    "leaky relu": one(
        "LEAKY_RELU", options=("LeakyReluOptions", {"alpha": 0.1}), span=(-1.0, 3.0)
    ),
    "prelu": Case("PRELU", (IMAGE, Weights(normal(1, 1, 4))), (IMAGE,), None, (-3.0, 3.0)),
    "elu": one("ELU", span=(-1.0, 3.0)),
    "gelu": one("GELU", options=("GeluOptions", {"approximate": False}), span=(-0.2, 3.0)),
    "gelu by tanh": one("GELU", options=("GeluOptions", {"approximate": True})),
    "hard swish": one("HARD_SWISH", span=(-0.4, 3.0)),
    "softmax": one("SOFTMAX", options=("SoftmaxOptions", {"beta": 1.0}), span=(0.0, 255 / 256)),
    "softmax, sharper": one("SOFTMAX", ROWS, ("SoftmaxOptions", {"beta": 2.0})),
    "log softmax": one("LOG_SOFTMAX", ROWS, ("LogSoftmaxOptions", {})),
    "l2 norm": one("L2_NORMALIZATION", options=("L2NormOptions", {})),
    "local response": one(
        "LOCAL_RESPONSE_NORMALIZATION",
        options=(
            "LocalResponseNormalizationOptions",
            {"radius": 1, "bias": 1.0, "alpha": 0.5, "beta": 0.75},
        ),
    ),
    **{
        code.lower(): one(code)
        for code in (
            "ABS",
            "CEIL",
            "COS",
            "EXP",
            "FLOOR",
            "NEG",
            "ROUND",
            "SIN",
            "SQUARE",
            "SIGN",
        )
    },
    "cast": Case("CAST", (IMAGE,), (IMAGE,), ("CastOptions", {}), None, ("int32",)),
    # places
    "reshape": Case(
        "RESHAPE",
        (IMAGE, ints(2, 96)),
        ((2, 96),),
        ("ReshapeOptions", {"newShape": [2, 96]}),
        "same",
    ),
    "squeeze": Case(
        "SQUEEZE", (IMAGE,), ((8, 6, 4),), ("SqueezeOptions", {"squeezeDims": [0]}), "same"
    ),
    "expand dims": Case(
        "EXPAND_DIMS", (IMAGE, ints(2)), ((1, 8, 1, 6, 4),), ("ExpandDimsOptions", {}), "same"
    ),
    "transpose": Case(
        "TRANSPOSE",
        (IMAGE, ints(0, 3, 2, 1)),
        ((1, 4, 6, 8),),
        ("TransposeOptions", {}),
        "same",
    ),
    "concatenation": Case(
        "CONCATENATION",
        (IMAGE, (1, 8, 6, 2)),
        ((1, 8, 6, 6),),
        ("ConcatenationOptions", {"axis": -1}),
        "same",
    ),
    "pack": Case(
        "PACK",
        (ROWS, ROWS),
        ((3, 2, 8),),
        ("PackOptions", {"axis": 1, "valuesCount": 2}),
        "same",
    ),
    "unpack": Case(
        "UNPACK",
        ((3, 2, 8),),
        ((3, 8), (3, 8)),
        ("UnpackOptions", {"axis": 1, "num": 2}),
        "same",
    ),
    "split": Case(
        "SPLIT",
        (ints(3)[0:1].reshape(()), IMAGE),
        ((1, 8, 6, 2), (1, 8, 6, 2)),
        ("SplitOptions", {"numSplits": 2}),
        "same",
    ),
    "split by sizes": Case(
        "SPLIT_V",
        (IMAGE, ints(3, 5), ints(1)[0:1].reshape(())),
        ((1, 3, 6, 4), (1, 5, 6, 4)),
        ("SplitVOptions", {"numSplits": 2}),
        "same",
    ),
    "slice": Case(
        "SLICE",
        (IMAGE, ints(0, 1, 0, 2), ints(1, 5, -1, 2)),
        ((1, 5, 6, 2),),
        ("SliceOptions", {}),
        "same",
    ),
    "strided slice": strided(((0, 6, 0, 1), (1, 0, 6, 3), (1, -2, 3, 1)), (1, 3, 2, 2)),
    "strided slice, masks": strided(
        ((0, 7, 2, 0), (1, 3, 3, 4), (1, -1, 1, 2)),
        (1, 8, 2),
        beginMask=0b1011,
        endMask=0b1010,
        shrinkAxisMask=0b0100,
    ),
    "strided slice, new axis": strided(
        ((0, 0, 1), (0, 0, 3), (1, 1, 1)),
        (1, 1, 8, 6, 2),
        newAxisMask=0b001,
        ellipsisMask=0b010,
    ),
    "pad": Case(
        "PAD",
        (IMAGE, np.array([[0, 0], [1, 2], [0, 1], [3, 0]], "i4")),
        ((1, 11, 7, 7),),
        ("PadOptions", {}),
        "same",
    ),
    "pad by a number": Case(
        "PADV2",
        (
            IMAGE,
            np.array([[0, 0], [1, 0], [0, 1], [0, 0]], "i4"),
            Weights(np.array([-2.0], "f4")),
        ),
        ((1, 9, 7, 4),),
        ("PadV2Options", {}),
    ),
    "mirror, reflect": Case(
        "MIRROR_PAD",
        (IMAGE, np.array([[0, 0], [1, 2], [0, 1], [0, 0]], "i4")),
        ((1, 11, 7, 4),),
        ("MirrorPadOptions", {"mode": 0}),
        "same",
    ),
    "mirror, symmetric": Case(
        "MIRROR_PAD",
        (IMAGE, np.array([[0, 0], [1, 2], [0, 1], [0, 0]], "i4")),
        ((1, 11, 7, 4),),
        ("MirrorPadOptions", {"mode": 1}),
        "same",
    ),
    "tile": Case("TILE", (IMAGE, ints(1, 2, 1, 3)), ((1, 16, 6, 12),), ("TileOptions", {})),
    "broadcast": Case(
        "BROADCAST_TO",
        ((8, 1, 4), ints(2, 8, 6, 4)),
        ((2, 8, 6, 4),),
        ("BroadcastToOptions", {}),
    ),
    "depth to space": Case(
        "DEPTH_TO_SPACE",
        (IMAGE,),
        ((1, 16, 12, 1),),
        ("DepthToSpaceOptions", {"blockSize": 2}),
        "same",
    ),
    "space to depth": Case(
        "SPACE_TO_DEPTH",
        (IMAGE,),
        ((1, 4, 3, 16),),
        ("SpaceToDepthOptions", {"blockSize": 2}),
        "same",
    ),
    "space to batch": Case(
        "SPACE_TO_BATCH_ND",
        (IMAGE, ints(2, 3), np.array([[1, 1], [0, 3]], "i4")),
        ((6, 5, 3, 4),),
        ("SpaceToBatchNDOptions", {}),
        "same",
    ),
    "batch to space": Case(
        "BATCH_TO_SPACE_ND",
        ((6, 5, 3, 4), ints(2, 3), np.array([[1, 1], [0, 3]], "i4")),
        ((1, 8, 6, 4),),
        ("BatchToSpaceNDOptions", {}),
        "same",
    ),
    "reverse": Case("REVERSE_V2", (IMAGE, ints(3)), (IMAGE,), ("ReverseV2Options", {})),
    "gather": Case(
        "GATHER",
        (IMAGE, ints(3, 0, 2)),
        ((1, 8, 6, 3),),
        ("GatherOptions", {"axis": 3}),
        "same",
    ),
    "gather one": Case(
        "GATHER",
        (IMAGE, ints(1)[0:1].reshape(())),
        ((1, 6, 4),),
        ("GatherOptions", {"axis": 1}),
        "same",
    ),
    "gather in batches": Case(
        "GATHER",
        ((2, 5, 3), np.array([[0, 4], [2, 1]], "i4")),
        ((2, 2, 3),),
        ("GatherOptions", {"axis": 1, "batchDims": 1}),
    ),
    "gather nd": Case(
        "GATHER_ND",
        (IMAGE, np.array([[0, 1, 2], [0, 7, 5]], "i4")),
        ((2, 4),),
        ("GatherNdOptions", {}),
        "same",
    ),
    "scatter nd": Case(
        "SCATTER_ND",
        (np.array([[1], [4], [1]], "i4"), ROWS, ints(5, 8)),
        ((5, 8),),
        ("ScatterNdOptions", {}),
    ),
    "one hot": Case(
        "ONE_HOT",
        (ROWS, ints(4)[0:1].reshape(()), np.array(2.0, "f4"), np.array(-1.0, "f4")),
        ((3, 8, 4),),
        ("OneHotOptions", {"axis": -1}),
        given="int32",
        dtypes=("float32",),
    ),
    "reverse sequence": Case(
        "REVERSE_SEQUENCE",
        (ROWS, ints(2, 8, 5)),
        (ROWS,),
        ("ReverseSequenceOptions", {"seqDim": 1, "batchDim": 0}),
    ),
    "top k": Case(
        "TOPK_V2",
        (IMAGE, ints(2)[0:1].reshape(())),
        ((1, 8, 6, 2), (1, 8, 6, 2)),
        ("TopKV2Options", {}),
        None,
        ("", "int32"),
    ),
    "zeros like": Case("ZEROS_LIKE", (IMAGE,), (IMAGE,), ("ZerosLikeOptions", {})),
    "shape": Case(
        "SHAPE", (IMAGE,), ((4,),), ("ShapeOptions", {"outType": 2}), None, ("int32",)
    ),
    "resize, linear": resize("RESIZE_BILINEAR", (16, 9), corners=False, half=True),
    "resize, linear by corners": resize("RESIZE_BILINEAR", (15, 11), corners=True, half=False),
    "resize, linear, old": resize("RESIZE_BILINEAR", (12, 12), corners=False, half=False),
    "resize, nearest": resize("RESIZE_NEAREST_NEIGHBOR", (13, 9), corners=False, half=False),
    "resize, nearest by centres": resize(
        "RESIZE_NEAREST_NEIGHBOR", (5, 12), corners=False, half=True
    ),
    "resize, nearest by corners": resize(
        "RESIZE_NEAREST_NEIGHBOR", (11, 11), corners=True, half=False
    ),
    # reductions
    "mean": reduce_("MEAN", ints(1, 2), (1, 4), False, (-2.0, 2.0)),
    "mean, kept": reduce_("MEAN", ints(1, 2), (1, 1, 1, 4), True, "same"),
    "mean over channels": reduce_("MEAN", ints(-1), (1, 8, 6), False, (-2.0, 2.0)),
    "sum": reduce_("SUM", ints(3), (1, 8, 6), False, (-9.0, 9.0)),
    "maximum of all": reduce_("REDUCE_MAX", ints(1, 2), (1, 4), False, "same"),
    "minimum of all": reduce_("REDUCE_MIN", ints(3), (1, 8, 6, 1), True, "same"),
    "product": reduce_("REDUCE_PROD", ints(2), (1, 8, 4), False, None),
    "any": Case(
        "REDUCE_ANY",
        (ROWS, ints(1)),
        ((3,),),
        ("ReducerOptions", {}),
        given="bool",
        dtypes=("bool",),
    ),
    "all": Case(
        "REDUCE_ALL",
        (ROWS, ints(0)),
        ((8,),),
        ("ReducerOptions", {}),
        given="bool",
        dtypes=("bool",),
    ),
    "arg max": Case(
        "ARG_MAX",
        (IMAGE, ints(3)[0:1].reshape(())),
        ((1, 8, 6),),
        ("ArgMaxOptions", {"outputType": 4}),
        "same",
        ("int64",),
    ),
    "arg min": Case(
        "ARG_MIN",
        (IMAGE, ints(1)[0:1].reshape(())),
        ((1, 6, 4),),
        ("ArgMinOptions", {"outputType": 2}),
        "same",
        ("int32",),
    ),
    "cumsum": Case(
        "CUMSUM",
        (IMAGE, ints(2)[0:1].reshape(())),
        (IMAGE,),
        ("CumsumOptions", {"exclusive": True}),
    ),
}
