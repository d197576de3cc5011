"""Estimate what of a graph's parameters stays on the chip, and where to cut it for several.

An Edge TPU keeps parameters in some 8 MB of memory from one run to the next, and streams what
does not fit on every run (https://coral.ai/docs/edgetpu/compiler). How it lays them out is not
published, so sizes here follow multiples that compiled files show (the rules' ``layout``), and
are estimates; what a compiled file itself says is read by `edgesdk.backends.edgetpu.package`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from typing import Any

from edgesdk.model.tflite_graph import TfliteGraph, TfliteOp
from edgesdk.profiles.compiler_values import CompilerRules, ParameterLayout

__all__ = ["estimate_memory", "parameter_bytes", "suggest_segments"]

_MOST_SEGMENTS = 16
#: Operators with a kernel that has one entry per output in front, and where that stands.
_KERNELS = {"CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
_DEPTHWISE = "DEPTHWISE_CONV_2D"


def parameter_bytes(
    graph: TfliteGraph, ops: Collection[int], layout: ParameterLayout
) -> dict[int, int]:
    """Give, by operator, what its constants take on the chip; a shared one counts once.

    Shapes, axes and paddings are part of the program and count nothing.
    """
    seen: set[int] = set()
    sizes = {}
    for op in graph.ops:
        if op.index not in ops:
            continue
        own = {i for i in op.inputs if i >= 0 and graph.tensors[i].constant is not None} - seen
        seen |= own
        kernel = _kernel(op)
        sizes[op.index] = sum(
            _kernel_bytes(op, graph.tensors[index].shape, layout)
            if index == kernel
            else graph.tensors[index].bytes
            for index in own
            if graph.tensors[index].dtype not in ("int32", "int64")
        )
    return sizes


def _kernel(op: TfliteOp) -> int:
    position = 1 if op.name == _DEPTHWISE else _KERNELS.get(op.name, len(op.inputs))
    return op.inputs[position] if position < len(op.inputs) else -1


def _kernel_bytes(op: TfliteOp, shape: tuple[int, ...], layout: ParameterLayout) -> int:
    """Give what a kernel and the biases and scales of its outputs take."""
    if not shape:
        return 0
    if op.name == _DEPTHWISE:
        channels = _up(shape[-1], layout.channels_multiple)
        weights = math.prod(shape[:-1]) * layout.channel_weight_bytes
        return channels * (weights + layout.channel_bytes)
    outputs = _up(shape[0], layout.outputs_multiple)
    depth = math.prod(shape[1:-1]) * _up(shape[-1], layout.depth_multiple)
    return outputs * (depth + layout.output_bytes)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def estimate_memory(
    graph: TfliteGraph, mapped: Collection[int], rules: CompilerRules
) -> dict[str, Any]:
    """Say what of the parameters would be cached and what streamed.

    An operator whose parameters alone take more than there is has none of them cached.
    """
    sizes = parameter_bytes(graph, mapped, rules.layout).values()
    fits = sum(size for size in sizes if size <= rules.cache_bytes)
    cached = min(fits, rules.cache_bytes)
    return {
        "parameter_bytes": sum(sizes),
        "cache_bytes": rules.cache_bytes,
        "cached_bytes": cached,
        "streamed_bytes": sum(sizes) - cached,
        "provenance": "assumed",
    }


def suggest_segments(
    graph: TfliteGraph, mapped: Collection[int], rules: CompilerRules, *, tpus: int = 0
) -> list[dict[str, Any]]:
    """Cut what is mapped into runs of about the same parameters, one for each Edge TPU.

    Args:
        graph: The graph.
        mapped: Operators that run on the Edge TPU.
        rules: What one of them keeps, and how.
        tpus: How many there are; 0 takes as many as it needs to keep everything, up to 16.

    Returns:
        For each segment its first and last operator, how many it has, the bytes of its
        parameters, and the bytes of the tensors that go on from it; empty where one will do.
    """
    sizes = parameter_bytes(graph, mapped, rules.layout)
    order = [op.index for op in graph.ops if op.index in sizes]
    wanted = tpus or _needed([sizes[index] for index in order], rules.cache_bytes)
    wanted = min(wanted, len(order), _MOST_SEGMENTS)
    if wanted < 2:
        return []
    cuts = _cut([sizes[index] for index in order], wanted)
    segments = []
    for first, last in itertools.pairwise(cuts):
        ops = order[first:last]
        segments.append(
            {
                "first_op": ops[0],
                "last_op": ops[-1],
                "ops": len(ops),
                "parameter_bytes": sum(sizes[index] for index in ops),
                "gives_bytes": _gives(graph, set(order[:last]), set(order[last:])),
                "provenance": "assumed",
            }
        )
    return segments


def _needed(sizes: Sequence[int], cache_bytes: int) -> int:
    total = sum(sizes)
    if total <= cache_bytes:
        return 1
    return next(
        (n for n in range(2, _MOST_SEGMENTS) if _largest(sizes, _cut(sizes, n)) <= cache_bytes),
        _MOST_SEGMENTS,
    )


def _largest(sizes: Sequence[int], cuts: Sequence[int]) -> int:
    return max(sum(sizes[a:b]) for a, b in itertools.pairwise(cuts))


def _cut(sizes: Sequence[int], count: int) -> list[int]:
    """Cut a row of sizes into ``count`` runs, none empty, the largest as small as it can be."""
    low, high = max(sizes), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        if len(_filled(sizes, middle, count)) - 1 <= count:
            high = middle
        else:
            low = middle + 1
    return _filled(sizes, low, count)


def _filled(sizes: Sequence[int], most: int, count: int) -> list[int]:
    """Fill runs up to ``most`` one after the other, leaving one entry for each run to come."""
    cuts, held = [0], 0
    for index, size in enumerate(sizes):
        left = len(sizes) - index
        is_short = left <= count - len(cuts)
        if index > cuts[-1] and (held + size > most or is_short):
            cuts.append(index)
            held = 0
        held += size
    return [*cuts, len(sizes)]


def _gives(graph: TfliteGraph, before: Collection[int], after: Collection[int]) -> int:
    makers = graph.producers()
    crossing = {
        index
        for op in graph.ops
        if op.index in after
        for index in op.inputs
        if makers.get(index) in before
    }
    return sum(graph.tensors[index].bytes for index in crossing)
