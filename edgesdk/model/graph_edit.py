"""Change a graph: names that nobody has, constants, nodes in the place of others.

Names of what is added are derived from the names of what was there, so the same model gives
the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "Attribute",
    "Names",
    "add_constant",
    "constant_of",
    "constant_value",
    "make_node",
    "replace_node",
]

Attribute = int | float | str | Sequence[int]


class Names:
    """Gives names that no value and no node of a model has."""

    def __init__(self, model: ir.Model) -> None:
        graphs = (model.graph, *model.graph.subgraphs())
        self._taken = {value.name or "" for graph in graphs for value in graph.inputs}
        self._taken.update(name for graph in graphs for name in graph.initializers)
        for node in model.graph.all_nodes():
            self._taken.add(node.name or "")
            self._taken.update(value.name or "" for value in node.outputs)

    def fresh(self, base: str) -> str:
        """Give ``base``, with a number behind it where it is taken."""
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}.{number}"
        self._taken.add(name)
        return name


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Give the tensor of an initializer that no caller can replace; None for other values."""
    if value is None or value.is_graph_input() or value.producer() is not None:
        return None
    return value.const_value


def add_constant(graph: ir.Graph, names: Names, base: str, array: np.ndarray) -> ir.Value:
    """Add an initializer to ``graph``, named after ``base``."""
    value = constant_value(names.fresh(base), array)
    graph.register_initializer(value)
    return value


def constant_value(name: str, array: np.ndarray) -> ir.Value:
    """Give a value that holds ``array``, to be registered as an initializer."""
    import numpy as np
    import onnx_ir as ir

    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    return ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )


def make_node(
    names: Names,
    op: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Attribute] | None = None,
    *,
    name: str,
    dtype: ir.DataType | None = None,
    domain: str = "",
    outputs: int = 1,
) -> ir.Node:
    """Make a node whose name and results are named after ``name``."""
    import onnx_ir as ir

    own = names.fresh(name)
    node = ir.node(op, inputs, attributes or {}, domain=domain, num_outputs=outputs, name=own)
    for number, value in enumerate(node.outputs):
        value.name = names.fresh(f"{own}:{number}")
    if dtype is not None:
        node.outputs[0].type = ir.TensorType(dtype)
    return node


def replace_node(
    node: ir.Node, news: Iterable[ir.Node], results: dict[int, ir.Value] | ir.Value
) -> None:
    """Put ``news`` where ``node`` was; ``results`` take over its outputs, by position.

    They take the old names, types and shapes too, so what is around stays as it was.
    """
    graph = node.graph
    assert graph is not None
    graph.insert_before(node, news)
    by_position = results if isinstance(results, dict) else {0: results}
    for position, new in by_position.items():
        old = node.outputs[position]
        name, kind, shape = old.name, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = None
        new.name, new.type, new.shape = name, kind, shape
    graph.remove(node, safe=True)
