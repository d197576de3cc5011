"""Which nodes the quantizer takes under a scheme's rules, and why it leaves others alone."""

from __future__ import annotations

from collections.abc import Collection

from edgesdk.model.classical import why_it_stays
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import SchemeRules

__all__ = ["data_inputs", "why_float", "why_not_converted"]

_ALL_INPUTS = frozenset({"Add", "Concat", "Div", "Max", "Min", "MatMul", "Mul", "Sub", "Sum"})
#: Where the weights of a compute operator stand.
WEIGHT_INPUT = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1}


def data_inputs(op: str, count: int) -> tuple[int, ...]:
    """Give the positions at which an operator reads the numbers that it works on.

    The others are parameters: shapes, indices, bounds, weights and biases.
    """
    if op in _ALL_INPUTS:
        return tuple(range(count))
    if op == "Where":
        return (1, 2)
    return (0,)


def why_float(
    node: NodeFacts, rules: SchemeRules, keep_float: Collection[str] = ()
) -> str | None:
    """Say why ``node`` stays in float in an 8-bit build, or None if it may be quantized.

    ``keep_float`` holds node names and operator types that the recipe keeps. This looks at one
    node only; the quantizer also leaves a node in float that has no 8-bit neighbour.
    """
    if node.name in keep_float or node.op in keep_float:
        return "the recipe keeps it in float"
    if node.subgraph_ops:
        return f"the bodies of {node.op} stay in float"
    if node.domain not in ("", "ai.onnx"):
        stays = why_it_stays(node)
        others = f"operators of the domain {node.domain!r} are not quantized"
        return others if stays is None else f"{node.op} {stays} and has no 8-bit form"
    if node.op in rules.kept_float:
        return rules.kept_float[node.op]
    absorbed = {op for ops in rules.fused_after.values() for op in ops}
    known = {*rules.compute, *rules.elementwise, *rules.same_scale, *absorbed}
    if node.op not in known:
        return f"{node.op} has no 8-bit kernel ({rules.name})"
    return _why_not_its_inputs(node)


def _why_not_its_inputs(node: NodeFacts) -> str | None:
    weight = WEIGHT_INPUT.get(node.op)
    if weight is not None and not _is_constant(node, weight):
        return "its weights are not constants"
    if node.op == "Gemm" and node.ints.get("transA", (0,))[0]:
        return "its first input is transposed"
    seen_any = False
    for position in data_inputs(node.op, len(node.inputs)):
        value = node.input_types[position] if position < len(node.input_types) else None
        if position < len(node.inputs) and not _is_constant(node, position):
            seen_any = True
        if value is not None and value.dtype not in ("float32", ""):
            return f"it works on {value.dtype}"
    return None if seen_any else "its data are constants"


def _is_constant(node: NodeFacts, position: int) -> bool:
    return position < len(node.constant_inputs) and node.constant_inputs[position]


def why_not_converted(
    node: NodeFacts, precision: str, rules: SchemeRules | None, keep_float: Collection[str] = ()
) -> str | None:
    """Say why ``node`` stays in float32 in a build of ``precision``, or None if it may not."""
    if precision in ("fp32", "as-is"):
        return None
    if precision in ("int8", "int16x8", "auto") and rules is not None:
        return why_float(node, rules, keep_float)
    if node.name in keep_float or node.op in keep_float:
        return "the recipe keeps it in float"
    return (
        _why_not_half(node) if precision in ("fp16", "auto") else _no_weights(node, precision)
    )


def _why_not_half(node: NodeFacts) -> str | None:
    floats = [value for value in node.output_types if value is not None]
    if floats and not any(value.dtype == "float32" for value in floats):
        return f"it gives {floats[0].dtype}"
    return None


def _no_weights(node: NodeFacts, precision: str) -> str | None:
    if node.subgraph_ops:
        return None if {"MatMul", "Gemm"} & set(node.subgraph_ops) else "it has no weights"
    if node.op in ("MatMul", "Gemm", "Gather") or (
        node.op == "LSTM" and precision == "int8-dynamic"
    ):
        position = 0 if node.op == "Gather" else 1
        return None if _is_constant(node, position) else "its weights are not constants"
    return f"{node.op} is not converted in {precision}"
