"""Each operator by itself: given what LiteRT gave it, does it give what LiteRT gives?

One step of difference in a number may become many behind a few layers, so that the answers of a
whole network tell little about its operators. Here every operator's result leaves the graph,
and LiteRT's own comes in instead for whoever reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesdk.importers.tflite.agreement import Agreement, compare
from edgesdk.importers.tflite.litert import LiteRT
from edgesdk.importers.tflite.onnxruns import OnnxRuns

if TYPE_CHECKING:
    import onnx

    from edgesdk.importers.tflite.walk import Converted
    from edgesdk.model.tflite_graph import TfliteGraph, TfliteOp

__all__ = ["compare_layers", "is_small_enough"]

#: Numbers of all tensors together that are held at once, twice.
_MOST_NUMBERS = 1 << 27


def is_small_enough(graph: TfliteGraph) -> bool:
    """Say whether all that a graph's operators give can be held at once."""
    made = {index for op in graph.ops for index in op.outputs if index >= 0}
    return sum(math.prod(graph.tensors[index].shape) for index in made) <= _MOST_NUMBERS


def compare_layers(
    data: bytes, graph: TfliteGraph, converted: Converted, example: list[Any]
) -> Iterator[tuple[TfliteOp, Agreement]]:
    """Compare what every operator gives with LiteRT's, in the order of execution.

    LiteRT's plain kernels are asked, which keep what every operator gives. What the graph does
    not hold is passed over.

    Args:
        data: The file that LiteRT runs.
        graph: What is in it.
        converted: What became of it.
        example: An array per input.

    Raises:
        CompileError: onnxruntime does not run the graph, or LiteRT not the file.
    """
    shapes = [graph.tensors[index].shape for index in graph.inputs]
    litert = LiteRT(data, keeps=True, shapes=shapes)
    litert.run(example)
    kept: dict[int, np.ndarray] = {}
    given: dict[str, np.ndarray] = {}
    for index, place in converted.places.items():
        array = litert.tensor(index)
        if array is not None and array.ndim == len(place.order):
            kept[index] = array
            given.setdefault(place.value, np.ascontiguousarray(array.transpose(place.order)))
    values = OnnxRuns(converted.model, change=lambda proto: _cut(proto, given)).run(
        list(given),
        {
            **dict(zip(_inputs(converted), example, strict=True)),
            **{_stand_in(name): array for name, array in given.items()},
        },
    )
    found = dict(zip(given, values, strict=True))
    for op in graph.ops:
        for index in op.outputs:
            if index not in kept:
                continue
            place = converted.places[index]
            got = found[place.value]
            if got.ndim == len(place.order):
                got = got.transpose([place.order.index(at) for at in range(got.ndim)])
            label = graph.tensors[index].name
            yield (
                op,
                compare(
                    label,
                    got,
                    kept[index],
                    step=place.step,
                    rounds=False,
                    is_wide=place.is_wide,
                ),
            )


def _inputs(converted: Converted) -> list[str]:
    return [value.name or "" for value in converted.model.graph.inputs]


def _stand_in(name: str) -> str:
    return f"{name}:given"


def _cut(proto: onnx.ModelProto, given: dict[str, np.ndarray]) -> None:
    """Let every value in ``given`` be an output, and its readers read an input instead."""
    import onnx

    for node in proto.graph.node:
        names = [_stand_in(name) if name in given else name for name in node.input]
        node.input[:] = names
    known = {value.name for value in proto.graph.output}
    for name, array in given.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        info = onnx.helper.make_tensor_value_info(_stand_in(name), kind, array.shape)
        proto.graph.input.append(info)
        if name not in known:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
