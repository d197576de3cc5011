"""Which nodes of an ONNX model are lowered to TFLite, from their facts alone.

The answers come from the registry of the lowerings, so what is said before the graph is there
is what the lowering checks when it is.
"""

from __future__ import annotations

from edgesdk.model.classical import why_it_stays
from edgesdk.model.values import NodeFacts

__all__ = ["FLOAT_ONLY", "tflite_ops", "why_not_lowered"]

#: Operators that are written in float whatever the graph is, as LiteRT computes them in float.
FLOAT_ONLY = frozenset({"DIV"})

#: What a value may be. TFLite has more types, and hardly any kernels for them.
_TYPES = {
    "",
    "float32",
    "float16",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "int64",
    "bool",
}
#: Known before the graph runs, so they need no kernel.
_CONSTANT = ("Constant", "QuantizeLinear", "DequantizeLinear")


def why_not_lowered(node: NodeFacts) -> str | None:
    """Say why a node is not lowered, or None if it is."""
    from edgesdk.backends.litert.lower.registry import entry_of

    if node.op in _CONSTANT and node.domain in ("", "ai.onnx"):
        return None
    entry = entry_of(node.op, node.domain)
    if (reason := why_it_stays(node)) is not None:
        return f"{node.op} {reason}, and LiteRT has no kernel for it"
    if entry is None:
        origin = f" of {node.domain}" if node.domain not in ("", "ai.onnx") else ""
        return f"{node.op}{origin} has no lowering to TFLite"
    known = (*node.constant_inputs, *(False for _ in node.output_types))
    for value, constant in zip((*node.input_types, *node.output_types), known, strict=False):
        if value is None:
            continue
        if value.dtype not in _TYPES:
            return f"{value.name} is {value.dtype}, which LiteRT's kernels do not take"
        if not constant and any(extent == 0 for extent in value.shape):
            return f"nothing is in {value.name}"
    return entry.why_not(node)


def tflite_ops(node: NodeFacts) -> tuple[str, ...]:
    """Name the operators of TFLite that a node may become, the main one first.

    The others are there where layouts, paddings or grids ask for them; empty where the node
    becomes none, or is not lowered.
    """
    from edgesdk.backends.litert.lower.registry import entry_of

    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        return (node.op.removesuffix("Linear").upper(),)
    entry = entry_of(node.op, node.domain)
    return () if entry is None else entry.into(node)
