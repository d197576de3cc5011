"""From Q/DQ pairs to what a DLA takes: a graph without them, and the scales in a file.

A DLA knows implicit quantization only: the builder is given the scale of each tensor and
decides itself which layers run in 8 bits. The scales travel as a calibration cache, the text
file that TensorRT's own calibrators write: a header that names version and algorithm, then a
line for each tensor with its scale as the hexadecimal bits of a float32, most significant byte
first.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgesdk.backends.base import NodesRefused
from edgesdk.errors import CompileError

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["calibration_cache", "implicit_scales"]

#: Operators that give a value within the range of the one they take, in whose scale they work.
_PASS_ON = frozenset(
    {"Clip", "LeakyRelu", "MaxPool", "Relu", "Reshape", "Slice", "Split", "Transpose"}
)


def calibration_cache(scales: Mapping[str, float], release: tuple[int, ...]) -> bytes:
    """Write scales as a calibration cache.

    Args:
        scales: By name of the tensor; the real value of one step.
        release: Of TensorRT, such as ``(8, 5, 2)``.

    Raises:
        CompileError: A name cannot stand in a line.
    """
    major, minor, patch = (*release, 0, 0)[:3]
    big = 10000 if major >= 10 else 1000
    lines = [f"TRT-{major * big + minor * 100 + patch}-EntropyCalibration2"]
    for name, scale in sorted(scales.items()):
        if not name.isprintable():
            raise CompileError(
                f"cannot write the scale of {name!r}: the name has characters that a line of a "
                "calibration cache cannot hold",
                hint="rename that tensor in the model",
                tensor=name,
            )
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return ("\n".join(lines) + "\n").encode("utf-8")


def implicit_scales(model: ir.Model) -> tuple[ir.Model, dict[str, float]]:
    """Take the Q/DQ pairs out of a graph; weights become float again.

    Args:
        model: The graph of a part; left as it is.

    Returns:
        The float graph, and the scale of each tensor that has one, by name.

    Raises:
        NodesRefused: A pair is not what a DLA can be given: not symmetric, not per tensor, or
            cut by the edge of the part.
    """
    from onnx_ir.passes import common

    copy = model.clone()
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    scales: dict[str, float] = {}
    for node in list(copy.graph):
        if node.op_type == "DequantizeLinear" and not node.domain:
            _take_out(copy, node, scales)
    common.RemoveUnusedNodesPass()(copy)
    for node in copy.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise NodesRefused({_name(node): "its other half is outside of the part"})
    _pass_on(copy, scales)
    return copy, scales


def _name(node: ir.Node) -> str:
    return node.outputs[0].name or ""


def _constant(value: ir.Value | None) -> np.ndarray | None:
    if value is None or value.const_value is None:
        return None
    array: np.ndarray = value.const_value.numpy()
    return array


def _take_out(model: ir.Model, node: ir.Node, scales: dict[str, float]) -> None:
    """Replace what a DequantizeLinear gives by what was quantized."""
    import numpy as np

    taken, given = node.inputs[0], node.outputs[0]
    scale = _constant(node.inputs[1])
    zero = _constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if taken is None or scale is None:
        raise NodesRefused({_name(node): "its scale is not constant"})
    if zero is not None and np.any(zero):
        raise NodesRefused({_name(node): "its zero point is not 0"})
    weights = _constant(taken)
    if weights is not None:
        _make_float(model, node, weights, scale)
        return
    maker = taken.producer()
    source = maker.inputs[0] if maker is not None else None
    if maker is None or maker.op_type != "QuantizeLinear" or source is None:
        raise NodesRefused({_name(node): "its other half is outside of the part"})
    if scale.size != 1:
        raise NodesRefused({_name(node): "it has a scale per channel of an activation"})
    if given.is_graph_output():
        source = _as_output(model, node, source)
    for use in list(given.uses()):
        use.node.replace_input_with(use.idx, source)
    if source.name:
        scales[source.name] = float(scale.reshape(-1)[0])


def _as_output(model: ir.Model, node: ir.Node, source: ir.Value) -> ir.Value:
    """Let a graph's output be the value that was quantized, under the output's name."""
    given = node.outputs[0]
    if source.is_graph_input() or source.is_graph_output():
        raise NodesRefused({_name(node): "it gives out what the part takes or gives already"})
    position = list(model.graph.outputs).index(given)
    name = given.name
    given.name = f"{name}.quantized"
    source.name = name
    source.type, source.shape = source.type or given.type, source.shape or given.shape
    model.graph.outputs[position] = source
    return source


def _make_float(model: ir.Model, node: ir.Node, weights: np.ndarray, scale: np.ndarray) -> None:
    import numpy as np
    import onnx_ir as ir

    attribute = node.attributes.get("axis")
    axis = attribute.as_int() if attribute is not None else 1
    if scale.size > 1:
        shape = [1] * weights.ndim
        shape[axis] = scale.size
        scale = scale.reshape(shape)
    floats = (weights.astype(np.float32) * scale.astype(np.float32)).astype(np.float32)
    given = node.outputs[0]
    name = given.name or ""
    given.name = f"{name}.quantized"
    value = ir.Value(
        name=name,
        shape=ir.Shape(floats.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(floats, name=name),
    )
    model.graph.register_initializer(value)
    for use in list(given.uses()):
        use.node.replace_input_with(use.idx, value)


def _pass_on(model: ir.Model, scales: dict[str, float]) -> None:
    """Give a scale to values that share it: TensorRT wants one at both ends of a layer.

    Backwards only to a value that nothing else reads, so that no other reader loses range.
    """
    nodes = [node for node in model.graph if node.op_type in _PASS_ON and not node.domain]
    for node in [*nodes, *reversed(nodes)]:
        taken, given = node.inputs[0], node.outputs
        if taken is None or not taken.name:
            continue
        known = scales.get(taken.name)
        if known is not None:
            for value in given:
                if value.name:
                    scales.setdefault(value.name, known)
        elif given[0].name in scales and len(list(taken.uses())) == 1:
            scales[taken.name] = scales[str(given[0].name)]
