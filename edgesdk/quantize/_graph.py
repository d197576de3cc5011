"""Graph surgery that all precisions share.

All of it works on a clone of the caller's model, in the top level and in the bodies of control
flow alike. Names of what is added are derived from the names of what was there, so the same
model gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from edgesdk.errors import QuantizeError
from edgesdk.model.graph_edit import (
    Names,
    add_constant,
    constant_of,
    constant_value,
    make_node,
    replace_node,
)
from edgesdk.model.nodes import bodies_of
from edgesdk.quantize.values import LeftFloat

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "CONTRIB",
    "KEPT",
    "Names",
    "add_constant",
    "constant_of",
    "constant_value",
    "kept_nodes",
    "left_float",
    "make_node",
    "nothing_done",
    "prepared",
    "replace_node",
    "tidy",
    "why_not_weights",
]

#: The domain of onnxruntime's own operators.
CONTRIB = "com.microsoft"
KEPT = "the recipe keeps it in float"
_MOST_REASONS = 4


def prepared(model: ir.Model) -> ir.Model:
    """Clone a model for rewriting: all its constants are initializers, in bodies too.

    What a Loop carries through all rounds unchanged is read from where it comes from, so that
    a recurrent cell's weights are seen to be constants.
    """
    from onnx_ir.passes import common

    copy = model.clone()
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    for node in list(copy.graph.all_nodes()):
        if node.op_type == "Loop" and not node.domain:
            _read_invariants(node)
    return copy


def _read_invariants(node: ir.Node) -> None:
    """Take constants out of what a Loop carries.

    The state `i` of a Loop is its input ``2 + i``, its body's input ``2 + i`` and output
    ``1 + i`` and its output ``i``.
    """
    import onnx_ir as ir

    body, graph = node.attributes["body"].as_graph(), node.graph
    assert graph is not None
    gone = []
    for state in range(len(node.inputs) - 2):
        outer, inner, last = (
            node.inputs[2 + state],
            body.inputs[2 + state],
            body.outputs[1 + state],
        )
        producer = last.producer()
        same = last is inner or (
            producer is not None
            and producer.op_type == "Identity"
            and producer.inputs[0] is inner
            and len(last.uses()) == 0
        )
        if not same or constant_of(outer) is None or node.outputs[state].is_graph_output():
            continue
        assert outer is not None
        gone.append(state)
        if last is not inner and producer is not None:
            body.outputs[1 + state] = inner
            body.remove(producer, safe=True)
        node.outputs[state].replace_all_uses_with(outer)
    if not gone:
        return
    kept = [number for number in range(len(node.outputs)) if number not in gone]
    for state in reversed(gone):
        outer, inner = node.inputs[2 + state], body.inputs[2 + state]
        assert outer is not None
        body.outputs.pop(1 + state)
        body.inputs.pop(2 + state)
        inner.replace_all_uses_with(outer)
    inputs = [v for number, v in enumerate(node.inputs) if number - 2 not in gone]
    fresh = ir.node("Loop", inputs, node.attributes, num_outputs=len(kept), name=node.name)
    replace_node(node, [fresh], dict(zip(kept, fresh.outputs, strict=True)))


def tidy(model: ir.Model) -> None:
    """Remove what nobody reads any more: nodes, weights, imports of operator sets."""
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(model)
    for body in model.graph.subgraphs():  # the pass leaves the initializers of bodies
        for name, value in list(body.initializers.items()):
            if not (value.uses() or value.is_graph_input() or value.is_graph_output()):
                del body.initializers[name]
    if any(node.domain == CONTRIB for node in model.graph.all_nodes()):
        model.graph.opset_imports.setdefault(CONTRIB, 1)


def kept_nodes(model: ir.Model, keep_float: Collection[str]) -> set[ir.Node]:
    """Find the nodes that the recipe keeps in float, with all that is in their bodies."""
    found: set[ir.Node] = set()

    def look(graph: ir.Graph, *, all_of_it: bool) -> None:
        for node in graph:
            kept = all_of_it or node.name in keep_float or node.op_type in keep_float
            if kept:
                found.add(node)
            for attribute in node.attributes.values():
                for body in bodies_of(attribute):
                    look(body, all_of_it=kept)

    look(model.graph, all_of_it=False)
    return found


def why_not_weights(value: ir.Value | None, least: int) -> str | None:
    """Say why a value cannot be quantized as weights, or None if it can be."""
    import numpy as np

    tensor = constant_of(value)
    if tensor is None:
        return "its weights are not constants"
    if tensor.dtype.name != "FLOAT":
        return f"its weights are {tensor.dtype.name.lower()}"
    if not tensor.size:
        return "its weights are empty"
    if tensor.size < least:
        return f"its {tensor.size} weights are too few to gain from it (at least {least})"
    if not np.isfinite(tensor.numpy()).all():
        return "its weights hold NaN or infinite values"
    return None


def left_float(node: ir.Node, reason: str) -> LeftFloat:
    """Say why a node stays in float; a node without a name goes by its first result."""
    name = node.name or next((value.name for value in node.outputs if value.name), "")
    return LeftFloat(name=name or "", op=node.op_type, reason=reason)


def nothing_done(
    model: ir.Model, verb: str, done: str, left: Sequence[LeftFloat], *, otherwise: str
) -> QuantizeError:
    """Give the error for a model of which no node could be converted.

    It names the reasons, or ``otherwise`` where no node was even of interest.
    """
    reasons = "; ".join(list(dict.fromkeys(one.reason for one in left))[:_MOST_REASONS])
    return QuantizeError(
        f"cannot {verb} {model.graph.name or 'the model'}: no node was {done} "
        f"({reasons or otherwise})",
        hint="build with --precision fp32",
        reasons=reasons,
    )
