"""Which nodes the quantizer takes, and why it leaves the others in float.

Left in float on purpose: Softmax and the normalizations (their outputs span decades, so eight
bits lose what the next layer needs) and table look-ups (they move weights and compute nothing).
"""

from __future__ import annotations

from collections.abc import Collection

from edgesdk.model.values import NodeFacts

__all__ = ["QUANTIZED_OPS", "why_float"]

#: Operators between which Q/DQ pairs are placed.
QUANTIZED_OPS = frozenset(
    {
        "Add",
        "AveragePool",
        "Clip",
        "Concat",
        "Conv",
        "ConvTranspose",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
        "Mul",
        "Pad",
        "Relu",
        "Reshape",
        "Resize",
        "Sigmoid",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
_FLOATS = ("float32", "float16")


def why_float(node: NodeFacts, keep_float: Collection[str] = ()) -> str | None:
    """Say why ``node`` stays in float in an int8 build, or None if it is quantized.

    ``keep_float`` holds node names and operator types that the recipe keeps.
    """
    if node.name in keep_float or node.op in keep_float:
        return "the recipe keeps it in float"
    if node.subgraph_ops:
        return f"the bodies of {node.op} stay in float"
    if node.domain not in ("", "ai.onnx"):
        return f"operators of the domain {node.domain!r} are not quantized"
    if node.op not in QUANTIZED_OPS:
        return f"{node.op} is not quantized"
    first = node.input_types[0] if node.input_types else None
    if first is not None and first.dtype not in _FLOATS:
        return f"it works on {first.dtype}"
    return None
