"""Sums of single columns, joined again, as the one product that they are.

Exporters write what an estimator does with a few scores column by column: a support vector
machine of ten classes becomes three hundred nodes that each choose, negate or add one number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.model.classical.writing import Writer
from edgesdk.model.graph_edit import Names, constant_of, replace_node

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["join_columns"]

#: Terms that are followed in all, and elements of a product's weights.
_MOST_TERMS = 1 << 20
_MOST_WEIGHTS = 1 << 22


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: ``shift`` and so much of each of a matrix's columns, by position."""

    source: ir.Value | None
    terms: dict[int, float]
    shift: float

    def times(self, factor: float) -> _Column:
        """Scale it."""
        terms = {column: part * factor for column, part in self.terms.items()}
        return _Column(self.source, terms, self.shift * factor)


def join_columns(model: ir.Model) -> int:
    """Write each Concat of such sums over one matrix as a product; say how many there were."""
    from onnx_ir.passes import common

    known: dict[ir.Value, _Column] = {}
    budget = _MOST_TERMS
    for node in model.graph:
        column = None if node.domain else _column(node, known)
        if column is not None:
            known[node.outputs[0]] = column
            budget -= len(column.terms)
            if budget < 0:
                return 0
    names, opset = Names(model), model.graph.opset_imports.get("", 0)
    done = 0
    for node in list(model.graph):
        if node.op_type == "Concat" and not node.domain:
            done += _join(node, known, Writer(node, names, opset))
    if done:
        common.RemoveUnusedNodesPass()(model)
    return done


def _column(node: ir.Node, known: dict[ir.Value, _Column]) -> _Column | None:
    """Say what a node's result is, if it is a sum of single columns of one matrix."""
    if node.op_type == "Gather":
        return _chosen(node)
    parts = [_part(value, known) for value in node.inputs]
    found = [part for part in parts if part is not None]
    combine = _COMBINED.get(node.op_type)
    if combine is None or len(found) != len(parts):
        return None
    return combine(found) if any(part.source is not None for part in found) else None


def _product(parts: list[_Column]) -> _Column | None:
    plain = [part for part in parts if part.source is None]
    other = [part for part in parts if part.source is not None]
    return other[0].times(plain[0].shift) if len(plain) == len(other) == 1 else None


def _chosen(node: ir.Node) -> _Column | None:
    value, axis = node.inputs[0], node.attributes.get("axis")
    index = constant_of(node.inputs[1])
    width = _width(value)
    if value is None or width is None or index is None or axis is None or axis.as_int() != 1:
        return None
    if tuple(index.shape.numpy()) != (1,):
        return None
    place = int(index.numpy().reshape(-1)[0])
    return _Column(value, {place: 1.0}, 0.0) if 0 <= place < width else None


def _width(value: ir.Value | None) -> int | None:
    if value is None or value.shape is None or len(value.shape) != 2 or value.dtype is None:
        return None
    width = value.shape[1]
    return width if isinstance(width, int) and value.dtype.name == "FLOAT" else None


def _part(value: ir.Value | None, known: dict[ir.Value, _Column]) -> _Column | None:
    if value is None:
        return None
    if value in known:
        return known[value]
    tensor = constant_of(value)
    if tensor is None or tensor.size != 1 or tensor.dtype.name != "FLOAT":
        return None
    if len(tuple(tensor.shape.numpy())) > 2:
        return None
    return _Column(None, {}, float(tensor.numpy().reshape(-1)[0]))


def _sum(parts: list[_Column]) -> _Column | None:
    sources = {id(part.source): part.source for part in parts if part.source is not None}
    if len(sources) != 1:
        return None
    (source,) = sources.values()
    terms: dict[int, float] = {}
    for part in parts:
        for column, factor in part.terms.items():
            terms[column] = terms.get(column, 0.0) + factor
    return _Column(source, terms, sum(part.shift for part in parts))


_COMBINED: dict[str, Callable[[list[_Column]], _Column | None]] = {
    "Add": _sum,
    "Identity": lambda parts: parts[0],
    "Mul": _product,
    "Neg": lambda parts: parts[0].times(-1.0),
    "Sub": lambda parts: _sum([parts[0], parts[1].times(-1.0)]),
    "Sum": _sum,
}


def _join(node: ir.Node, known: dict[ir.Value, _Column], write: Writer) -> bool:
    import numpy as np

    axis = node.attributes.get("axis")
    columns = [known[value] for value in node.inputs if value is not None and value in known]
    sources = {id(column.source): column.source for column in columns}
    if len(columns) != len(node.inputs) or len(sources) != 1 or len(columns) < 2:
        return False
    if axis is None or axis.as_int() not in (1, -1):
        return False
    (source,) = sources.values()
    width = _width(source)
    if source is None or width is None or width * len(columns) > _MOST_WEIGHTS:
        return False
    weights: np.ndarray = np.zeros((len(columns), width), np.float32)
    for row, column in enumerate(columns):
        for place, factor in column.terms.items():
            weights[row, place] = factor
    shift = np.array([column.shift for column in columns], np.float32)
    product = write.op(
        "Gemm",
        source,
        write.constant(weights, "weight"),
        write.constant(shift, "shift"),
        transB=1,
    )
    assert node.graph is not None
    for value in write.constants:
        node.graph.register_initializer(value)
    replace_node(node, write.nodes, product)
    return True
