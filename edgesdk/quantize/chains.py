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
    chains = []
    used: set[str] = set()
    for node in model.graph:
        for value in node.outputs:
            name = value.name or ""
            if name not in layout.tensors or name in used or value.is_graph_output():
                continue
            chain = Chain(tensors=[])
            if not (_follow_readers(value, chain, layout) and _follow_writers(value, chain)):
                continue
            if used.isdisjoint(chain.tensors):
                used.update(chain.tensors)
                chains.append(chain)
    return chains


def _follow_readers(value: onnx_ir.Value, chain: Chain, layout: Layout) -> bool:
    """Walk to the weights that read the channels; False where something else does."""
    chain.tensors.append(value.name or "")
    uses = value.uses()
    return bool(uses) and all(
        not position
        and not node.domain
        and node.graph is value.graph
        and _follow_reader(node, value, chain, layout)
        for node, position in uses
    )


def _follow_reader(
    node: onnx_ir.Node, value: onnx_ir.Value, chain: Chain, layout: Layout
) -> bool:
    if node.op_type in _PASSES or (node.op_type == "Flatten" and _is_one_place(value, node)):
        if chain.axis != 1 or node.outputs[0].is_graph_output():
            return False
        return _follow_readers(node.outputs[0], chain, layout)
    if node.name not in layout.units or constant_array(second_input(node)) is None:
        return False
    chain.readers.append(node.name or "")
    if node.op_type == "Conv":
        return _reads_channels(node, chain)
    return node.op_type in ("Gemm", "MatMul") and _reads_columns(node, chain, value)


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


def _reads_channels(node: onnx_ir.Node, chain: Chain) -> bool:
    weight = constant_array(second_input(node))
    assert weight is not None
    group = group_of(node)
    if chain.axis != 1:
        return False
    if group == 1:
        chain.free = False
        return True
    return bool(weight.shape[1] == 1 and weight.shape[0] % group == 0)


def _reads_columns(node: onnx_ir.Node, chain: Chain, value: onnx_ir.Value) -> bool:
    weight = constant_array(second_input(node))
    assert weight is not None
    rank = len(value.shape) if value.shape is not None else 0
    if weight.ndim != 2 or rank < 2:
        return False
    if rank == 2 and chain.axis == 1:
        chain.free = False
        return True  # two axes: the last is the second
    if len(chain.readers) > 1 and chain.axis != -1:
        return False
    if len(chain.tensors) > 1:
        return False
    chain.axis = -1
    chain.free = False
    return True


def _follow_writers(value: onnx_ir.Value, chain: Chain) -> bool:
    """Walk up to the operators that take the factors; False where there is none."""
    while True:
        node = value.producer()
        if node is None or node.domain or node.graph is not value.graph:
            return False
        if node.outputs[0] is not value:
            return False
        done = _write(node, chain)
        if done is not None:
            return done
        before = node.inputs[0]
        if before is not None and is_constant(before):
            before = node.inputs[1]
        if before is None or len(before.uses()) != 1 or before.is_graph_output():
            return False
        value = before
        chain.tensors.append(value.name or "")


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


def rank_of(node: onnx_ir.Node) -> int:
    """Give the rank of a node's first result; 0 where it is not known."""
    shape = node.outputs[0].shape
    return 0 if shape is None else len(shape)


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
