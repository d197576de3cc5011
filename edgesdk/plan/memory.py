"""Predict what a model needs in memory: weights, and the tensors alive at once."""

from __future__ import annotations

from collections.abc import Collection

from edgesdk.backends.base import ModelFacts
from edgesdk.model.values import NodeFacts
from edgesdk.tensors import TensorInfo
from edgesdk.wire.tensors import DTYPE_BYTES

__all__ = ["predict_memory_bytes"]


def predict_memory_bytes(model: ModelFacts, int8_nodes: Collection[int]) -> int | None:
    """Give weights plus the peak of live activations in bytes, or None if a shape is not fixed.

    Nodes run in graph order; a tensor lives from its producer to its last consumer. A quantized
    node's tensors and weights count one byte an element. The runtime's own memory comes on top.
    """
    last_use = {name: node.index for node in model.nodes for name in node.inputs}
    kept = {value.name for value in model.source.outputs}
    alive: dict[str, int] = {}
    for entry in model.source.inputs:
        size = _bytes(entry, quantized=False)
        if size is None:
            return None
        alive[entry.name] = size
    peak = sum(alive.values())
    for node in model.nodes:
        for name, value in zip(node.outputs, node.output_types, strict=False):
            size = None if value is None else _bytes(value, quantized=node.index in int8_nodes)
            if size is None:
                return None
            alive[name] = size
        peak = max(peak, sum(alive.values()))
        for name in (*node.inputs, *node.outputs):
            if last_use.get(name, node.index) <= node.index and name not in kept:
                alive.pop(name, None)
    return peak + _weight_bytes(model, int8_nodes)


def _weight_bytes(model: ModelFacts, int8_nodes: Collection[int]) -> int:
    saved = 0
    seen: set[str] = set()
    for node in model.nodes:
        if node.index in int8_nodes:
            saved += _saved_by_int8(node, seen)
    return max(0, model.source.initializer_bytes - saved)


def _saved_by_int8(node: NodeFacts, seen: set[str]) -> int:
    saved = 0
    for name, value, constant in zip(
        node.inputs, node.input_types, node.constant_inputs, strict=False
    ):
        # a bias (rank 1) becomes int32 and saves nothing
        if constant and value is not None and len(value.shape) > 1 and name not in seen:
            seen.add(name)
            saved += (_bytes(value, quantized=False) or 0) - (
                _bytes(value, quantized=True) or 0
            )
    return saved


def _bytes(value: TensorInfo, *, quantized: bool) -> int | None:
    count = 1
    for extent in value.shape:
        if not isinstance(extent, int):
            return None
        count *= extent
    floating = value.dtype.startswith("float")
    return count * (1 if quantized and floating else DTYPE_BYTES.get(value.dtype, 8))
