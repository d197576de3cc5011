"""Fix shapes: a model at a batch of one, for what cannot run with an open one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.model._shapes import infer_and_check
from edgesdk.model.nodes import is_constant
from edgesdk.model.simplify import simplify

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["at_batch_one", "folded_outputs", "open_batch", "with_shapes"]


def open_batch(model: onnx_ir.Model) -> tuple[str, ...]:
    """Name the graph inputs whose leading extent is not fixed."""
    return tuple(
        value.name or ""
        for value in model.graph.inputs
        if value.shape is not None and len(value.shape) and not _is_fixed(value.shape[0])
    )


def at_batch_one(model: onnx_ir.Model) -> onnx_ir.Model:
    """Give a copy in which leading unknown extents of the inputs are 1.

    Extents elsewhere that share a symbol with one of these become 1 too, and shape inference
    carries all that through the graph.

    Raises:
        ModelError: The graph contradicts a batch of one.
    """
    import onnx_ir as ir

    copy = model.clone()
    wanted = set(open_batch(copy))
    symbols = set()
    for value in copy.graph.inputs:
        if value.name in wanted and value.shape is not None:
            extents = list(value.shape)
            symbols.add(_symbol(extents[0]))
            extents[0] = 1
            value.shape = ir.Shape(extents)
    symbols.discard(None)
    for value in (*copy.graph.inputs, *copy.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([1 if _symbol(e) in symbols else e for e in value.shape])
    for value in copy.graph.outputs:
        if value.shape is not None and value.producer() is not None:
            # what it stated was for an open batch: inference says it anew where it can
            value.shape = ir.Shape([e if _is_fixed(e) else None for e in value.shape])
    infer_and_check(copy, Path(model.graph.name or "the model at a batch of one"))
    return copy


def with_shapes(model: onnx_ir.Model) -> onnx_ir.Model:
    """Give a copy in which every value has the shape that inference finds for it.

    Raises:
        ModelError: The graph contradicts itself.
    """
    copy = model.clone()
    infer_and_check(copy, Path(model.graph.name or "the graph"))
    return copy


def folded_outputs(model: onnx_ir.Model) -> frozenset[str]:
    """Name the values that some node gives and that simplifying turns into constants.

    So do values that only such nodes read.
    """
    simple = simplify(model)
    left = {value.name: node for node in simple.graph for value in node.outputs}
    known = {
        value.name
        for node in simple.graph
        for value in node.inputs
        if value is not None and is_constant(value)
    }
    outputs = {value.name for value in model.graph.outputs}
    folded: set[str] = set()
    for node in reversed(list(model.graph)):
        names = [value.name for value in node.outputs if value.name]
        if any(name in left or name in outputs for name in names):
            continue
        uses = [use for value in node.outputs for use in value.uses()]
        by_readers = bool(uses) and all(
            all(value.name in folded for value in reader.outputs if value.name)
            or _reads_constant(left, reader, position)
            for reader, position in uses
        )
        if names and (by_readers or all(name in known for name in names)):
            folded.update(names)
    return frozenset(folded)


def _reads_constant(
    left: Mapping[str | None, onnx_ir.Node], reader: onnx_ir.Node, position: int
) -> bool:
    """Say whether what is left of a node reads a constant there; equal ones share a name."""
    names = [value.name for value in reader.outputs if value.name]
    after = left.get(names[0]) if names else None
    if after is None or after.op_type != reader.op_type or position >= len(after.inputs):
        return False
    return is_constant(after.inputs[position])


def _is_fixed(extent: object) -> bool:
    return isinstance(extent, int)


def _symbol(extent: object) -> str | None:
    value = getattr(extent, "value", extent)
    return value if isinstance(value, str) else None
