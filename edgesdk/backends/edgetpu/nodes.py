"""Foretell where nodes of an ONNX graph will run, before there is a TFLite file to judge.

A node is drawn as the operator it is lowered to, which has to keep the compiler's limits; then
the rule of one part is applied to the nodes. Nodes that are not lowered go into other files, so
each stretch between them is compiled on its own, and has a part of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.backends.base import ModelFacts
from edgesdk.backends.edgetpu.limits import Objection, object_to
from edgesdk.backends.edgetpu.mapping import first_run, runs, say
from edgesdk.backends.litert.rules import why_not_lowered
from edgesdk.backends.litert.sketch import draw
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.compiler_values import CompilerRules

__all__ = ["strand", "why_not_mapped"]


def why_not_mapped(node: NodeFacts, rules: CompilerRules) -> str | None:
    """Say why the compiler leaves what a node is lowered to, wherever it stands."""
    if (reason := why_not_lowered(node)) is not None:
        return reason
    drawing = draw([node], ())
    for op in drawing.graph.ops:
        objection = object_to(drawing.graph, op, rules)
        if objection is not None:
            return say(objection, rules)
    return None


def strand(model: ModelFacts, found: Mapping[int, str], rules: CompilerRules) -> dict[int, str]:
    """Say which nodes are left because of where they stand.

    Args:
        model: The graph.
        found: Nodes that are refused for what they are.
        rules: Of the compiler.
    """
    behind = say(Objection(kind="subgraph", seen="behind one that is not mapped"), rules)
    makers = {name: node.index for node in model.nodes for name in node.outputs if name}
    floats = {value.name for value in model.source.inputs if value.dtype.startswith("float")}
    # a float input is quantized first, on the processor
    entries = {name: -1 - number for number, name in enumerate(sorted(floats))}
    needs: dict[int, set[int]] = {}
    for node in model.nodes:
        reads = [name for name in (*node.inputs, *node.captures) if name]
        needs[node.index] = {makers[name] for name in reads if name in makers}
        needs[node.index] |= {entries[name] for name in reads if name in entries}
    apart = {node.index for node in model.nodes if why_not_lowered(node) is not None}
    refused = {*found, *model.floats, *entries.values()}
    stranded: dict[int, str] = {}
    for is_lowered, part in runs(needs, apart):
        if not is_lowered:
            continue
        first = {index for node in part for index in needs[node] if index < 0}
        inside: dict[int, set[int]] = {index: set() for index in sorted(first, reverse=True)}
        inside |= {index: needs[index] for index in needs if index in part}
        kept = first_run(inside, refused)
        stranded |= {index: behind for index in part if index not in kept | refused}
    return stranded
