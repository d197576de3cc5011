"""The operators that TensorRT's ONNX parser imports, with the types it takes them in.

Read from docs/operators.md of https://github.com/onnx/onnx-tensorrt: of its 8.5 release for the
first column, of 10.15 for the second; what came in between from docs/Changelog.md there. ``F``
stands for floats, ``I`` for 32- and 64-bit integers, ``B`` for booleans, ``-`` for not at all,
and a number behind for the release from which on. Eight-bit types count as floats here: they
come from Q/DQ pairs. Before 9, int64 is narrowed to int32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

__all__ = ["Support", "support_of"]

_NATIVE_INT64 = (9, 0)

_TABLE = """
Abs FI FI
Acos F F
Acosh F F
Add FI FI
And B B
ArgMax F FI
ArgMin F FI
Asin F F
Asinh F F
Atan F F
Atanh F F
Attention - F 10.15
AveragePool FI F
BatchNormalization F F
BlackmanWindow - F 10.4
Cast FIB FIB
CastLike - FIB 10.0
Ceil F F
Celu F F
Clip F F
Concat FIB FIB
Constant FIB FIB
ConstantOfShape FIB FIB
Conv F F
ConvTranspose F F
Cos F F
Cosh F F
CumSum F F
DeformConv - F 10.1
DepthToSpace FI FI
DequantizeLinear F F
Div FI FI
Dropout F F
Einsum F F
Elu F F
Equal FI FI
Erf F F
Exp F F
Expand FIB FIB
EyeLike FIB FIB
Flatten FIB FIB
Floor F F
Gather FIB FIB
GatherElements FIB FIB
GatherND FIB FIB
Gelu - FI 10.0
Gemm F F
GlobalAveragePool F F
GlobalLpPool F F
GlobalMaxPool F F
Greater FI FI
GreaterOrEqual FI FI
GridSample F F
GroupNormalization - F 8.6
GRU F F
HammingWindow - F 10.4
HannWindow - F 10.4
HardSwish F F
HardSigmoid F F
Hardmax - F 9.2
Identity FIB FIB
If FIB FIB
InstanceNormalization F F
IsInf - F 8.6
IsNaN FI FI
LayerNormalization - F 8.6
LeakyRelu F F
Less FI FI
LessOrEqual FI FI
Log F F
LogSoftmax F F
Loop FIB FIB
LRN F F
LSTM F F
LpNormalization F F
LpPool F F
MatMul F F
Max FI FI
MaxPool F F
Mean FI FI
MeanVarianceNormalization F F
Min FI FI
Mish - F 10.0
Mod FI FI
Mul FI FI
Neg FI FI
NonMaxSuppression F F
NonZero F F
Not B B
OneHot FIB FIB
Or B B
Pad FI FI
Pow F FI
PRelu F F
QuantizeLinear F F
RandomNormal F F
RandomNormalLike F F
RandomUniform F F
RandomUniformLike F F
Range FI FI
Reciprocal F F
ReduceL1 F FI
ReduceL2 F FI
ReduceLogSum F FI
ReduceLogSumExp F FI
ReduceMax F FI
ReduceMean F FI
ReduceMin F FI
ReduceProd F FI
ReduceSum F FI
ReduceSumSquare F FI
Relu F FI
Reshape FIB FIB
Resize F F
ReverseSequence F FIB
RMSNormalization - F 10.15
RNN F F
RoiAlign F F
RotaryEmbedding - F 10.15
Round F F
STFT - F 10.5
Scan F F
Scatter FI FI
ScatterElements FI FI
ScatterND FI FI
Selu F F
Shape FIB FIB
Shrink FI FI
Sigmoid F F
Sign FI FI
Sin F F
Sinh F F
Size FIB FIB
Slice FIB FIB
Softmax F F
Softplus F F
Softsign F F
SpaceToDepth FI FI
Split FIB FIB
Sqrt F F
Squeeze FIB FIB
Sub FI FI
Sum FI FI
Tan F F
Tanh F F
TensorScatter - FI 10.15
ThresholdedRelu F F
Tile FIB FIB
TopK F FI
Transpose FIB FIB
Trilu FIB FIB
Unsqueeze FIB FIB
Upsample F F
Where FIB FIB
Xor B B
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """How far a release imports an operator.

    Attributes:
        kinds: The types that it takes, a selection of ``FIB``; empty without an importer.
        since: The release that first has one, where that is known and later than this one.
    """

    kinds: str
    since: str = ""


@cache
def _rows() -> dict[str, tuple[str, str, str]]:
    rows = {}
    for line in _TABLE.split("\n"):
        name, *columns = line.split() or [""]
        if name:
            old, new, *since = columns
            rows[name] = (old, new, since[0] if since else "")
    return rows


def support_of(op: str, release: tuple[int, ...]) -> Support:
    """Say how a release of TensorRT takes an operator of ONNX's default domain."""
    row = _rows().get(op)
    if row is None:
        return Support(kinds="")
    old, new, since = row
    if since and tuple(map(int, since.split("."))) > release[:2]:
        return Support(kinds="", since=since)
    return Support(kinds=new if since or release[:2] >= _NATIVE_INT64 else old)
