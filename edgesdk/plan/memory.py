"""Predict what a model needs in memory: weights, and the tensors alive at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from edgesdk.backends.base import ModelFacts
from edgesdk.errors import PlacementError
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import TargetProfile
from edgesdk.tensors import TensorInfo
from edgesdk.wire.tensors import DTYPE_BYTES

__all__ = ["predict_memory_bytes", "refuse_too_large", "tensor_bytes"]

#: Bytes of an activation that a node makes, and of a number of its weights; ``auto`` is
#: foretold as what it tries first. Four bits come with a scale of four bytes for 32 numbers.
_ACTIVATION = {"int8": 1, "auto": 1, "int16x8": 2, "fp16": 2}
_WEIGHT = {
    "int8": 1.0,
    "auto": 1.0,
    "int16x8": 1.0,
    "fp16": 2.0,
    "int8-dynamic": 1.0,
    "int4-weights": 0.5 + 4 / 32,
}


def predict_memory_bytes(
    model: ModelFacts, precisions: Mapping[int, str], constants: Collection[str] = ()
) -> int | None:
    """Give weights plus the peak of live activations in bytes, or None if a shape is not fixed.

    Nodes run in graph order; a tensor lives from its producer to its last consumer. What is
    float in the source counts in the width of its node's precision. The runtime's own memory
    comes on top.

    Args:
        model: The source graph.
        precisions: What each node computes in, by index; float32 where it is not listed.
        constants: Tensors that some node makes and that are known before the graph runs.
    """
    last_use = {name: node.index for node in model.nodes for name in node.inputs}
    kept = {value.name for value in model.source.outputs}
    alive: dict[str, int] = {}
    # the nodes may have an open extent of an input fixed
    read = {value.name: value for node in model.nodes for value in node.input_types if value}
    for entry in model.source.inputs:
        size = _bytes(read.get(entry.name, entry))
        if size is None:
            return None
        alive[entry.name] = size
    peak = sum(alive.values())
    for node in model.nodes:
        width = _ACTIVATION.get(precisions.get(node.index, ""))
        for name, value in zip(node.outputs, node.output_types, strict=False):
            if name in constants:
                continue
            size = None if value is None else _bytes(value, width)
            if size is None:
                return None
            alive[name] = size
        peak = max(peak, sum(alive.values()))
        for name in (*node.inputs, *node.outputs):
            if last_use.get(name, node.index) <= node.index and name not in kept:
                alive.pop(name, None)
    return peak + _weight_bytes(model, precisions, constants)


def refuse_too_large(name: str, profile: TargetProfile, memory_bytes: int | None) -> None:
    """Refuse a model that a target's memory cannot hold.

    Raises:
        PlacementError: It needs more than the target has.
    """
    if memory_bytes is None or profile.ram_bytes is None or memory_bytes <= profile.ram_bytes:
        return
    raise PlacementError(
        f"cannot place {name} on {profile.name}: its weights and tensors take about "
        f"{memory_bytes} bytes, the device has {profile.ram_bytes}",
        hint="choose a larger target or a smaller model; an ONNX model also shrinks with "
        "--precision int8 or int4-weights, and with smaller inputs (--shape)",
        memory_bytes=memory_bytes,
        ram_bytes=profile.ram_bytes,
    )


def tensor_bytes(value: TensorInfo, precision: str) -> int:
    """Give the size of a tensor in a part of ``precision``; an unknown extent counts as 1."""
    known = tuple(extent if isinstance(extent, int) else 1 for extent in value.shape)
    fixed = TensorInfo(name=value.name, dtype=value.dtype, shape=known)
    return _bytes(fixed, _ACTIVATION.get(precision)) or 0


def _weight_bytes(
    model: ModelFacts, precisions: Mapping[int, str], constants: Collection[str]
) -> int:
    saved = 0
    seen: set[str] = set()
    for node in model.nodes:
        precision = precisions.get(node.index, "")
        if precision in _WEIGHT:
            saved += _saved(node, precision, constants, seen)
    return max(0, model.source.initializer_bytes - saved)


def _saved(node: NodeFacts, precision: str, constants: Collection[str], seen: set[str]) -> int:
    saved = 0
    for name, value, constant in zip(
        node.inputs, node.input_types, node.constant_inputs, strict=False
    ):
        if not (constant or name in constants) or value is None or name in seen:
            continue
        # a bias (rank 1) becomes int32, which saves nothing, but for half precision
        if len(value.shape) < 2 and precision != "fp16":
            continue
        seen.add(name)
        saved += (_bytes(value) or 0) - (_bytes(value, _WEIGHT[precision]) or 0)
    return saved


def _bytes(value: TensorInfo, width: float | None = None) -> int | None:
    """Give the size of a tensor; ``width`` is what a number takes that is float32 now."""
    count = 1
    for extent in value.shape:
        if not isinstance(extent, int):
            return None
        count *= extent
    own = DTYPE_BYTES.get(value.dtype, 8)
    if width is None or not value.dtype.startswith("float"):
        return count * own
    return math.ceil(count * min(width, own))
