"""Find where the channels of an activation can be scaled: between linear operators.

From a quantized tensor the walk goes down to every weight that reads it and up to the operators
whose results can take a factor per channel. It gives up where anything else reads or changes
the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesdk.model.nodes import is_constant
from edgesdk.quantize.edit import group_of
from edgesdk.quantize.layout import Layout
from edgesdk.quantize.operands import constant_array

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["Chain", "find_chains", "rank_of", "second_input", "watched_chains"]

#: Operators that treat channels apart and carry a positive factor through.
_PASSES = frozenset({"AveragePool", "Dropout", "GlobalAveragePool", "LeakyRelu", "MaxPool"})


@dataclass(slots=True, kw_only=True)
class Chain:
    """A place where channels can be scaled.

    Attributes:
        tensors: The tensors whose channels are scaled, the one that is read first.
        writers: Node and input positions whose channels of the result take the factors.
        readers: Weights that take the inverse: node names.
        axis: The axis of the channels in ``tensors``.
        ceiling: Where an activation on the way clips; None where none does.
        free: Whether the readers' weights lose nothing.
    """

    tensors: list[str]
    writers: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    axis: int = 1
    ceiling: float | None = None
    free: bool = True


def find_chains(model: onnx_ir.Model, layout: Layout) -> list[Chain]:
    """Find where channels can be evened out: quantized tensors between linear operators."""
    carries = _carries(model, layout)
    chains = []
    used: set[str] = set()
    barren: set[tuple[str, int]] = set()
    for node in model.graph:
        for value in node.outputs:
            name = value.name or ""
            if name not in layout.tensors or name in used or value.is_graph_output():
                continue
            axis = 1 if value in carries else -1
            if axis == -1 and not _all_read_columns(value, layout):
                continue
            above = Chain(tensors=[], axis=axis)
            if not _follow_writers(value, above, barren):
                continue
            chain = _with_readers(value, above)
            if used.isdisjoint(chain.tensors):
                used.update(chain.tensors)
                chains.append(chain)
    return chains


def _carries(model: onnx_ir.Model, layout: Layout) -> set[onnx_ir.Value]:
    """Give the tensors whose channels (axis 1) can be scaled for all who read them.

    Goes from the end of the graph to its start, so that each tensor is looked at once.
    """
    found: set[onnx_ir.Value] = set()
    for node in reversed(model.graph):
        for value in node.outputs:
            uses = value.uses()
            if uses and all(
                not position
                and not reader.domain
                and reader.graph is value.graph
                and (
                    reader.outputs[0] in found and not reader.outputs[0].is_graph_output()
                    if _passes(reader, value)
                    else _reads_axis_1(reader, value, layout)
                )
                for reader, position in uses
            ):
                found.add(value)
    return found


def _passes(node: onnx_ir.Node, value: onnx_ir.Value) -> bool:
    """Say whether a factor per channel of what ``node`` reads goes through it."""
    return node.op_type in _PASSES or (node.op_type == "Flatten" and _is_one_place(value, node))


def _reads_axis_1(node: onnx_ir.Node, value: onnx_ir.Value, layout: Layout) -> bool:
    weight = _weight_in(node, layout)
    if weight is None:
        return False
    if node.op_type == "Conv":
        group = group_of(node)
        return group == 1 or bool(weight.shape[1] == 1 and weight.shape[0] % group == 0)
    return _is_product(node, weight) and _rank(value) == 2  # the last axis is the second


def _all_read_columns(value: onnx_ir.Value, layout: Layout) -> bool:
    """Say whether all who read a tensor multiply along its last axis with constants."""
    uses = value.uses()
    return bool(uses) and all(
        not position
        and not reader.domain
        and reader.graph is value.graph
        and (weight := _weight_in(reader, layout)) is not None
        and _is_product(reader, weight)
        and _rank(value) > 2
        for reader, position in uses
    )


def _weight_in(node: onnx_ir.Node, layout: Layout) -> np.ndarray | None:
    """Give the constant weight of a node that computes in 8 bits."""
    return constant_array(second_input(node)) if node.name in layout.units else None


def _is_product(node: onnx_ir.Node, weight: np.ndarray) -> bool:
    return node.op_type in ("Gemm", "MatMul") and weight.ndim == 2


def _with_readers(value: onnx_ir.Value, above: Chain) -> Chain:
    """Give the whole chain of a tensor that carries factors, from what is above it."""
    tensors: list[str] = []
    waiting = [value]
    while waiting:
        value = waiting.pop()
        tensors.append(value.name or "")
        further = []
        for reader, _ in value.uses():
            if _passes(reader, value):
                further.append(reader.outputs[0])
                continue
            above.readers.append(reader.name or "")
            if reader.op_type != "Conv" or group_of(reader) == 1:
                above.free = False
        waiting += reversed(further)
    above.tensors[:0] = tensors
    return above


def second_input(node: onnx_ir.Node) -> onnx_ir.Value | None:
    """Give what a node reads second, if anything."""
    return node.inputs[1] if len(node.inputs) > 1 else None


def _is_one_place(value: onnx_ir.Value, node: onnx_ir.Node) -> bool:
    """Say whether a Flatten only drops extents of 1, so that columns are channels."""
    axis = node.attributes.get("axis")
    shape = value.shape
    return (
        (axis is None or axis.as_int() == 1)
        and shape is not None
        and len(shape) > 2
        and all(extent == 1 for extent in list(shape)[2:])
    )


def _follow_writers(value: onnx_ir.Value, chain: Chain, barren: set[tuple[str, int]]) -> bool:
    """Walk up to the operators that take the factors; False where there is none.

    ``barren`` are tensors, with the axis, from which a walk found none: those that this one
    passes are added, and no walk passes them again.
    """
    passed = [value]
    while True:
        found = _writer_above(value, chain, barren)
        if isinstance(found, bool):
            break
        if chain.ceiling is None:  # else a walk that begins above the Clip may pass another
            passed.append(found)
        chain.tensors.append(found.name or "")
        value = found
    if not found:
        barren.update((one.name or "", chain.axis) for one in passed)
    return found


def _writer_above(
    value: onnx_ir.Value, chain: Chain, barren: set[tuple[str, int]]
) -> onnx_ir.Value | bool:
    """Go one step up: give the tensor to go on from, or whether the walk ended well."""
    node = value.producer()
    if (value.name or "", chain.axis) in barren or node is None or node.domain:
        return False
    if node.graph is not value.graph or node.outputs[0] is not value:
        return False
    done = _write(node, chain)
    if done is not None:
        return done
    before = node.inputs[0]
    if before is not None and is_constant(before):
        before = node.inputs[1]
    if before is None or len(before.uses()) != 1 or before.is_graph_output():
        return False
    return before


def _write(node: onnx_ir.Node, chain: Chain) -> bool | None:
    """Add ``node`` to the writers: True ends the walk, None goes on, False gives it up."""
    op, images = node.op_type, chain.axis == 1
    if op in ("Relu", "LeakyRelu") or (op in _PASSES and images):
        return None
    if op == "Clip":
        return _note_ceiling(node, chain)
    if op in ("Add", "Mul"):
        return _note_constant(node, chain)
    takes = {
        "Conv": images,
        "ConvTranspose": images,
        "BatchNormalization": images,
        "Gemm": not images or rank_of(node) == 2,
        "MatMul": not images or rank_of(node) == 2,
        "LayerNormalization": not images and _normalizes_last(node),
    }
    if not takes.get(op, False):
        return False
    return _note_weights(node, chain, (1,) if op == "MatMul" else (1, 2))


def _normalizes_last(node: onnx_ir.Node) -> bool:
    """Say whether a LayerNormalization has one scale for each index of the last axis."""
    scale = constant_array(second_input(node))
    return scale is not None and scale.ndim == 1


def _note_constant(node: onnx_ir.Node, chain: Chain) -> bool | None:
    """Take an Add or Mul with a constant per channel; behind a Mul nothing need change."""
    position = next((p for p, v in enumerate(node.inputs) if is_constant(v)), None)
    if position is None or not _by_channel(node, position, chain.axis):
        return False
    chain.writers.append((node.name or "", (position,)))
    return True if node.op_type == "Mul" else None


def _rank(value: onnx_ir.Value) -> int:
    return 0 if value.shape is None else len(value.shape)


def rank_of(node: onnx_ir.Node) -> int:
    """Give the rank of a node's first result; 0 where it is not known."""
    return _rank(node.outputs[0])


def _note_ceiling(node: onnx_ir.Node, chain: Chain) -> bool | None:
    bounds = [constant_array(value) for value in node.inputs[1:3]]
    if len(bounds) != 2 or bounds[0] is None or bounds[1] is None:
        return False
    low, high = float(bounds[0].reshape(())), float(bounds[1].reshape(()))
    if low != 0.0 or high <= 0.0 or chain.ceiling is not None:
        return False
    chain.ceiling = high
    return None


def _note_weights(node: onnx_ir.Node, chain: Chain, positions: tuple[int, ...]) -> bool:
    present = []
    for position in positions:
        value = node.inputs[position] if position < len(node.inputs) else None
        if value is None:
            continue
        array = constant_array(value)
        if array is None or array.dtype.name != "float32":
            return False
        present.append(position)
    if node.op_type == "ConvTranspose" and group_of(node) != 1:
        return False
    if node.op_type == "MatMul":
        weight = constant_array(node.inputs[1])
        if weight is None or weight.ndim != 2:
            return False
    if node.op_type == "Gemm" and 2 in present:
        bias = constant_array(node.inputs[2])
        if bias is None or (bias.ndim > 1 and bias.shape[0] != 1):
            return False  # it varies from row to row
    chain.writers.append((node.name or "", tuple(present)))
    return True


def _by_channel(node: onnx_ir.Node, position: int, axis: int) -> bool:
    """Say whether a constant operand varies along the channels only, or not at all."""
    array = constant_array(node.inputs[position])
    rank = rank_of(node)
    if array is None or array.dtype.name != "float32" or not rank or array.ndim > rank:
        return False
    full = (1,) * (rank - array.ndim) + array.shape
    place = axis % rank
    return all(extent == 1 for index, extent in enumerate(full) if index != place)


def watched_chains(chains: list[Chain]) -> Iterator[tuple[str, int]]:
    """Give every tensor that equalizing needs followed by channel, with the channels' axis."""
    for chain in chains:
        for name in chain.tensors:
            yield name, chain.axis
