"""Tell whether a node means the same in another version of ONNX's operators.

Most new versions of an operator only allow more types or add an optional input or attribute. A
node that uses none of the additions is the same in both. `SAME_MEANING` lists the steps for
which that holds, read from the operator changelog; every other step goes to ONNX's own version
converter. What a node uses is then checked against the schema of the other version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["how_it_changes", "new_word", "why_not_the_same", "why_not_valid"]

_TYPES = (8, 9, 11, 12, 13)
_GROWING = (13, 14, 19, 21, 23, 24, 25)

#: operators -> versions at which their signature grew and old uses kept their meaning.
_SAME_MEANING: dict[str, tuple[int, ...]] = {
    "Abs Ceil Erf Exp Expand Floor Gather GatherElements GatherND Gemm Greater Less": _TYPES,
    "Log MatMul Max Mean Min Neg NonZero Reciprocal Sigmoid Sign Sqrt Sum Tanh Tile": _TYPES,
    "ArgMax ArgMin LRN MeanVarianceNormalization": (11, 12, 13),
    "Clip": (12, 13),
    "Resize": (13, 18, 19),
    "Add Div Mul Sub Relu": (13, 14),
    "Acos Acosh Asin Asinh Atan Atanh Cos Cosh Sin Sinh Tan Det Elu Selu EyeLike": (22,),
    "GlobalAveragePool GlobalLpPool GlobalMaxPool HardSigmoid InstanceNormalization": (22,),
    "LpNormalization MaxRoiPool RandomNormal RandomNormalLike RandomUniform Mish": (22,),
    "RandomUniformLike Round Softplus Softsign ThresholdedRelu Multinomial": (22,),
    "HardSwish DeformConv Bernoulli RoiAlign": (22,),
    "Conv ConvTranspose MaxUnpool": (11, 22),
    "AveragePool LpPool": (10, 11, 18, 19, 22),
    "MaxPool": (8, 10, 11, 12, 22),
    "GRU LSTM RNN": (14, 22),
    "Dropout": (10, 13, 22),
    "BatchNormalization": (9, 14, 15),
    "Cast CastLike": (9, 13, 15, 19, 21, 23, 24, 25, 28),
    "Concat": (11, 13),
    "Constant": (9, 11, 12, *_GROWING),
    "ConstantOfShape": (20, *_GROWING),
    "CumSum": (14,),
    "DepthToSpace SpaceToDepth": (11, 13, 28),
    "DequantizeLinear QuantizeLinear": (*_GROWING, 28),
    "BitShift Celu Compress Einsum OneHot ReverseSequence Unique": (11, 28),
    "Equal": (11, 13, 19),
    "Flatten": (9, 11, *_GROWING),
    "GreaterOrEqual LessOrEqual": (16,),
    "Identity If Loop": (11, 16, *_GROWING),
    "Scan": (11, 16, *_GROWING),
    "IsInf IsNaN": (13, 20),
    "LeakyRelu PRelu Where": (9, 16),
    "Mod": (13,),
    "Pad": (18, *_GROWING),
    "Pow": (12, 13, 15),
    "QLinearMatMul": (21,),
    "Range": (27,),
    "ReduceMax ReduceMin": (11, 12, 13, 20),
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceProd": (11, 13, 28),
    "ReduceSum ReduceSumSquare": (11, 28),
    "Reshape": _GROWING,
    "ScatterElements ScatterND": (13, 16, 18),
    "Shape": (15, *_GROWING),
    "Size Transpose": _GROWING,
    "Slice": (11, 13),
    "Split": (11, 18),
    "SplitToSequence TopK": (24,),
    "Squeeze Unsqueeze": (11, 21, 23, 24, 25),
}
SAME_MEANING = {
    name: frozenset(versions)
    for names, versions in _SAME_MEANING.items()
    for name in names.split()
}


def how_it_changes(op: str, domain: str, old: int, new: int) -> tuple[int, ...]:
    """List the versions at which an operator changed between two opsets, newest first.

    Raises:
        KeyError: The operator does not exist at one of them.
    """
    import onnx

    low, high = sorted((old, new))
    try:
        floor = onnx.defs.get_schema(op, low, domain).since_version
        at: int = onnx.defs.get_schema(op, high, domain).since_version
    except onnx.defs.SchemaError as exc:
        raise KeyError(op) from exc
    versions: list[int] = []
    while at > floor:
        versions.append(at)
        at = onnx.defs.get_schema(op, at - 1, domain).since_version
    return tuple(versions)


def why_not_the_same(node: onnx_ir.Node, opset: int, changes: tuple[int, ...]) -> str | None:
    """Say why a node cannot be taken over unchanged into ``opset``; None if it can."""
    known = SAME_MEANING.get(node.op_type, frozenset())
    strange = [one for one in changes if one not in known or _depends(node, one, opset)]
    if strange:
        return f"{node.op_type} changed its meaning at opset {strange[-1]}"
    return why_not_valid(node, opset)


def why_not_valid(node: onnx_ir.Node, opset: int) -> str | None:
    """Say what of a node the schema of an opset does not allow; None if it allows all."""
    import onnx

    domain = "" if node.domain == "ai.onnx" else node.domain
    schema = onnx.defs.get_schema(node.op_type, opset, domain)
    return (
        _wrong_count(node, schema, opset)
        or _wrong_attribute(node, schema, opset)
        or _wrong_type(node.inputs, schema.inputs, schema, "takes")
        or _wrong_type(node.outputs, schema.outputs, schema, "gives")
    )


def _wrong_count(node: onnx_ir.Node, schema: onnx.defs.OpSchema, opset: int) -> str | None:
    inputs, outputs = _used(node.inputs), len(node.outputs)
    if not schema.min_input <= inputs <= schema.max_input:
        return f"it has {inputs} inputs (at most {schema.max_input} at opset {opset})"
    for value, formal in zip(node.inputs, schema.inputs, strict=False):
        if value is None and formal.option == formal.option.Single:
            return f"it leaves out its input {formal.name!r}, which opset {opset} asks for"
    if not schema.min_output <= outputs <= schema.max_output:
        return f"it has {outputs} outputs (at most {schema.max_output} at opset {opset})"
    return None


def _wrong_attribute(node: onnx_ir.Node, schema: onnx.defs.OpSchema, opset: int) -> str | None:
    for name in node.attributes:
        if name not in schema.attributes:
            return f"its attribute {name!r} does not exist at opset {opset}"
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in node.attributes:
            return f"it lacks the attribute {name!r}, which opset {opset} asks for"
    return None


def _depends(node: onnx_ir.Node, version: int, opset: int) -> bool:
    """Say whether a step that is harmless for most nodes is not for this one."""
    op = node.op_type
    if op in ("AveragePool", "LpPool"):
        # what a window that hangs over the edge averages over was put right at 19
        return version in (18, 19) and _int(node, "ceil_mode") != 0
    if op == "BatchNormalization":
        return version in (9, 14) and any(value.name for value in node.outputs[1:])
    if op == "Range":
        kind = node.outputs[0].dtype
        return kind is None or kind.name in ("FLOAT16", "BFLOAT16")
    if op == "Split":
        # from 18 on, one without sizes has to say into how many parts
        return version == 18 and opset >= 18 and _used(node.inputs) < 2
    return new_word(node, (version,)) is not None


def new_word(node: onnx_ir.Node, changes: tuple[int, ...]) -> str | None:
    """Say which word of an attribute came or went with one of the versions; None if none."""
    for version in changes:
        name, words = _NEW_WORDS.get((node.op_type, version), ("", ()))
        if name and _text(node, name) in words:
            return f"{name} {_text(node, name)!r} of {node.op_type} changed at opset {version}"
    return None


#: Words of attributes that came or went with a version.
_NEW_WORDS: dict[tuple[str, int], tuple[str, tuple[str, ...]]] = {
    ("ScatterElements", 16): ("reduction", ("add", "mul", "max", "min")),
    ("ScatterElements", 18): ("reduction", ("max", "min")),
    ("ScatterND", 16): ("reduction", ("add", "mul", "max", "min")),
    ("ScatterND", 18): ("reduction", ("max", "min")),
    ("Pad", 19): ("mode", ("wrap",)),
    ("Resize", 13): ("coordinate_transformation_mode", ("tf_half_pixel_for_nn",)),
    ("Resize", 19): ("coordinate_transformation_mode", ("half_pixel_symmetric",)),
}


def _int(node: onnx_ir.Node, name: str) -> int:
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None else 0


def _text(node: onnx_ir.Node, name: str) -> str:
    attribute = node.attributes.get(name)
    return attribute.as_string() if attribute is not None else ""


def _used(values: Sequence[onnx_ir.Value | None]) -> int:
    return max(
        (index + 1 for index, value in enumerate(values) if value is not None), default=0
    )


def _wrong_type(
    values: Sequence[onnx_ir.Value | None],
    formals: Sequence[onnx.defs.OpSchema.FormalParameter],
    schema: onnx.defs.OpSchema,
    verb: str,
) -> str | None:
    import onnx_ir as ir

    for index, value in enumerate(values):
        if value is None or not formals or not isinstance(value.type, ir.TensorType):
            continue
        formal = formals[min(index, len(formals) - 1)]
        text = (
            f"tensor({_TYPE_NAMES.get(value.type.dtype.name, value.type.dtype.name.lower())})"
        )
        if formal.types and text not in formal.types:
            return f"it {verb} {text}, which opset {schema.since_version} does not"
    return None


_TYPE_NAMES = {"FLOAT": "float", "DOUBLE": "double"}
