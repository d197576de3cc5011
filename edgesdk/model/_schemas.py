"""Tell whether a node means the same in another version of ONNX's operators.

Most new versions of an operator only allow more types or add an optional input or attribute. A
node that uses none of the additions is the same in both. `SAME_MEANING` lists the steps for
which that holds, read from the operator changelog; every other step goes to ONNX's own version
converter. What a node uses is then checked against the schema of the other version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["how_it_changes", "why_not_the_same"]

#: operator -> versions (from 8 on) at which its signature grew but old uses kept their meaning.
SAME_MEANING: dict[str, frozenset[int]] = {
    name: frozenset(versions)
    for names, versions in (
        # more types; 14 brought in-place training forms and is listed by operator below
        (
            "Abs Ceil Erf Exp Expand Floor Gather GatherElements GatherND Gemm Greater Hardmax Less "
            "Log MatMul Max Mean Min Neg NonZero Reciprocal Sigmoid Sign Sqrt Sum "
            "Tanh Tile MeanVarianceNormalization",
            (8, 9, 11, 13),
        ),
        ("LRN", (13,)),
        ("Add Div Mul Sub Relu", (13, 14)),
        (
            "Acos Acosh Asin Asinh Atan Atanh Cos Cosh Det Elu GlobalAveragePool GlobalLpPool "
            "GlobalMaxPool HardSigmoid InstanceNormalization LpNormalization MaxRoiPool "
            "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Round Selu Sin Sinh "
            "Softplus Softsign Tan ThresholdedRelu EyeLike Mish Multinomial HardSwish "
            "DeformConv Bernoulli",
            (22,),
        ),
        ("Conv ConvTranspose", (11, 22)),
        ("AveragePool", (22,)),
        ("MaxPool", (8, 12, 22)),
        ("GRU LSTM RNN", (14, 22)),
        ("Dropout", (10, 13, 22)),
        ("BatchNormalization", (15,)),
        ("Cast CastLike", (9, 13, 15, 19, 21, 23, 24, 25, 28)),
        ("Clip", (12, 13)),
        ("Concat", (11, 13)),
        ("Constant", (9, 11, 12, 13, 19, 21, 23, 24, 25)),
        ("ConstantOfShape", (20, 21, 23, 24, 25)),
        ("CumSum", (14,)),
        ("DepthToSpace SpaceToDepth", (11, 13, 28)),
        ("DequantizeLinear QuantizeLinear", (13, 19, 21, 23, 24, 25, 28)),
        ("Einsum BitShift Celu Compress OneHot ReverseSequence Unique", (28,)),
        ("Equal", (11, 13, 19)),
        ("Flatten", (9, 11, 13, 21, 23, 24, 25)),
        ("GreaterOrEqual LessOrEqual", (16,)),
        ("Identity", (13, 14, 16, 19, 21, 23, 24, 25)),
        ("If Loop Scan", (11, 13, 16, 19, 21, 23, 24, 25)),
        ("IsInf", (20,)),
        ("IsNaN", (13, 20)),
        ("LeakyRelu PRelu Where", (9, 16)),
        ("LpPool", (22,)),
        ("Mod", (13, 28)),
        ("Pad", (13, 18, 19, 21, 23, 24, 25)),
        ("Pow", (12, 13, 15)),
        ("QLinearMatMul", (21,)),
        ("Range", (27,)),
        ("ReduceMax ReduceMin", (11, 12, 20)),
        (
            "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceProd ReduceSumSquare "
            "ReduceSum",
            (11, 28),
        ),
        ("Reshape", (13, 14, 19, 21, 23, 24, 25)),
        ("Resize", (13,)),
        ("ScatterElements ScatterND", (13, 16, 18)),
        ("Shape", (13, 15, 19, 21, 23, 24, 25)),
        ("Size", (13, 19, 21, 23, 24, 25)),
        ("Slice", (11, 13)),
        ("SplitToSequence", (24,)),
        ("Squeeze Unsqueeze", (11, 21, 23, 24, 25)),
        ("TopK", (24,)),
        ("Transpose", (13, 21, 23, 24, 25)),
        ("ArgMax ArgMin", (11, 12, 13)),
    )
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
    import onnx

    known = SAME_MEANING.get(node.op_type, frozenset())
    strange = [version for version in changes if version not in known]
    if strange:
        return f"{node.op_type} changed its meaning at opset {strange[-1]}"
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    if not schema.min_input <= _used(node.inputs) <= schema.max_input:
        return (
            f"it has {_used(node.inputs)} inputs (at most {schema.max_input} at opset {opset})"
        )
    if not schema.min_output <= len(node.outputs) <= schema.max_output:
        return f"it has {len(node.outputs)} outputs (at most {schema.max_output})"
    for name in node.attributes:
        if name not in schema.attributes:
            return f"its attribute {name!r} does not exist at opset {opset}"
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in node.attributes:
            return f"it lacks the attribute {name!r}, which opset {opset} asks for"
    return _wrong_type(node.inputs, schema.inputs, schema, "takes") or _wrong_type(
        node.outputs, schema.outputs, schema, "gives"
    )


def _used(values: tuple[onnx_ir.Value | None, ...]) -> int:
    return max(
        (index + 1 for index, value in enumerate(values) if value is not None), default=0
    )


def _wrong_type(
    values: tuple[onnx_ir.Value | None, ...] | tuple[onnx_ir.Value, ...],
    formals: list[onnx.defs.OpSchema.FormalParameter],
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
            return f"it {verb} {text}, which {schema.name} does not at opset {schema.since_version}"
    return None


_TYPE_NAMES = {"FLOAT": "float", "DOUBLE": "double"}
