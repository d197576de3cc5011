"""See a Q/DQ graph as the kernels it stands for: its operators, with Q/DQ pairs looked through.

A placement is about operators; the pairs between them only say which numbers travel. So each
operator is described as in the float graph, and beside it which of its values are quantized.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesdk.model.nodes import node_facts, tensor_info
from edgesdk.model.values import NodeFacts

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["KernelGraph", "kernel_graph"]

_PAIRS = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelGraph:
    """The operators of a graph without its Q/DQ nodes.

    Attributes:
        nodes: By position in the graph with Q/DQ nodes. Inputs that come through a pair have
            the name and type of what the pair was given; constants keep their own.
        quantized: Nodes that read or give quantized numbers.
        outputs: Names of what the graph's outputs stand for.
        crossings: By node and name of an input, the value of the Q/DQ graph that has to reach
            the node's part where it is made elsewhere: the quantized one where there is one.
        finals: By name of what it stands for, the graph outputs.
    """

    nodes: dict[int, NodeFacts]
    quantized: Collection[int]
    outputs: tuple[str, ...]
    crossings: dict[tuple[int, str], str]
    finals: dict[str, tuple[str, ...]]


def kernel_graph(model: onnx_ir.Model) -> KernelGraph:
    """Describe a graph by its kernels."""
    facts = node_facts(model)
    nodes: dict[int, NodeFacts] = {}
    quantized: set[int] = set()
    crossings: dict[tuple[int, str], str] = {}
    made = {value.name: value for node in model.graph for value in node.outputs}
    for index, node in enumerate(model.graph):
        if node.op_type in _PAIRS and node.domain in ("", "ai.onnx"):
            continue
        names, types, constants = [], [], []
        for position, value in enumerate(node.inputs):
            origin, crossing = _origin(value)
            through = origin is not value
            name = "" if origin is None else origin.name or ""
            names.append(name)
            types.append(
                tensor_info(origin)
                if through and origin is not None
                else facts[index].input_types[position]
            )
            constants.append(
                facts[index].constant_inputs[position] or (through and crossing is None)
            )
            if through:
                quantized.add(index)
            if crossing is not None:
                known = crossings.get((index, name))
                # who reads a tensor both ways gets the float one and quantizes it anew
                plain = name if known is not None and known != crossing else crossing
                crossings[index, name] = plain
        captures = []
        for inside in facts[index].captures:
            origin, crossing = _origin(made.get(inside))
            name = inside if origin is None or crossing is None else origin.name or ""
            captures.append(name)
            if name != inside and crossing is not None:
                crossings.setdefault((index, name), crossing)
        if node.outputs and _only_quantized(node.outputs[0]):
            quantized.add(index)
        nodes[index] = replace(
            facts[index],
            inputs=tuple(names),
            input_types=tuple(types),
            constant_inputs=tuple(constants),
            captures=tuple(captures),
        )
    finals: dict[str, tuple[str, ...]] = {}
    for value in model.graph.outputs:
        origin, _ = _origin(value)
        name = (origin.name if origin is not None else value.name) or ""
        finals[name] = (*finals.get(name, ()), value.name or "")
    return KernelGraph(
        nodes=nodes,
        quantized=quantized,
        outputs=tuple(finals),
        crossings=crossings,
        finals=finals,
    )


def _origin(
    value: onnx_ir.Value | None,
) -> tuple[onnx_ir.Value | None, str | None]:
    """Give what a value stands for, and the value that carries it across a boundary.

    A dequantized constant stands for itself and is carried by nothing.
    """
    import onnx_ir as ir

    if value is None:
        return None, None
    carrier = value.name
    current = value
    first = True
    while (node := current.producer()) is not None and node.op_type in _PAIRS:
        source = node.inputs[0] if node.inputs else None
        if source is None:
            break
        if node.op_type == "DequantizeLinear":
            maker = source.producer()
            if maker is None and not source.is_graph_input():
                # another value object of its name: a pair was looked through
                copy = ir.Value(name=value.name, shape=value.shape, type=value.type)
                return copy, None
            if first:
                carrier = source.name
        first = False
        current = source
    is_known = current.producer() is None and not current.is_graph_input()
    return current, None if is_known else carrier


def _only_quantized(value: onnx_ir.Value) -> bool:
    uses = value.uses()
    return bool(uses) and all(node.op_type == "QuantizeLinear" for node, _ in uses)
