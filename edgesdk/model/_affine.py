"""Fold BatchNormalization, and Mul and Add per channel, into the convolution before them.

The products are computed in float64 and rounded once, so the folded weights are as near to the
graph's mathematics as float32 can be. Only float32 convolutions with constant weights are
touched, whose result nobody but the folded node reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["fold_affine"]

_LARGEST_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class _Affine:
    """``y = scale * x + shift`` per channel, and the node whose work that is."""

    node: onnx_ir.Node
    scale: np.ndarray
    shift: np.ndarray


def fold_affine(graph: onnx_ir.Graph) -> int:
    """Fold what can be folded in one graph, chains included; say how many nodes went.

    Constants must be initializers already.
    """
    folded = 0
    for node in list(graph):
        if node.graph is None or node.op_type not in ("Conv", "ConvTranspose") or node.domain:
            continue
        while (affine := _affine_after(node, graph)) is not None:
            if not _fold(node, affine, graph):
                break
            folded += 1
    return folded


def _affine_after(conv: onnx_ir.Node, graph: onnx_ir.Graph) -> _Affine | None:
    result = conv.outputs[0]
    uses = result.uses()
    if len(uses) != 1 or result.is_graph_output():
        return None
    node, position = next(iter(uses))
    channels = _channels(conv)
    if node.domain or node.graph is not graph or not channels:
        return None
    if node.op_type == "BatchNormalization" and position == 0:
        return _of_batch_norm(node, channels)
    if node.op_type in ("Mul", "Add") or (node.op_type in ("Sub", "Div") and position == 0):
        return _of_arithmetic(node, position, channels, _rank(conv))
    return None


def _of_batch_norm(node: onnx_ir.Node, channels: int) -> _Affine | None:
    import numpy as np

    training = node.attributes.get("training_mode")
    if training is not None and training.as_int() != 0:
        return None
    if "spatial" in node.attributes and node.attributes["spatial"].as_int() != 1:
        return None
    if any(
        value is not None and (value.uses() or value.is_graph_output())
        for value in node.outputs[1:]
    ):
        return None
    found = [_numbers(value) for value in node.inputs[1:5]]
    if len(found) != 4 or any(one is None or one.shape != (channels,) for one in found):
        return None
    gamma, beta, mean, variance = (np.asarray(one) for one in found)
    epsilon = node.attributes.get("epsilon")
    added = np.float64(np.float32(1e-5 if epsilon is None else epsilon.as_float()))
    if not np.all(variance + added > 0):
        return None
    scale = gamma / np.sqrt(variance + added)
    return _Affine(node, scale, beta - mean * scale)


def _of_arithmetic(
    node: onnx_ir.Node, position: int, channels: int, rank: int
) -> _Affine | None:
    import numpy as np

    if any(name in node.attributes for name in ("axis", "broadcast")):  # before opset 7
        return None
    constant = _numbers(node.inputs[1 - position])
    if constant is None or not rank:
        return None
    if constant.size == 1 and constant.ndim <= rank:
        values = np.full(channels, constant.reshape(()))
    else:
        full = (1,) * (rank - constant.ndim) + constant.shape
        if full != (1, channels, *(1,) * (rank - 2)):
            return None
        values = constant.reshape(channels)
    ones, zeros = np.ones(channels), np.zeros(channels)
    if node.op_type == "Mul":
        return _Affine(node, values, zeros)
    if node.op_type == "Div":
        return None if not np.all(values) else _Affine(node, 1.0 / values, zeros)
    return _Affine(node, ones, values if node.op_type == "Add" else -values)


def _fold(conv: onnx_ir.Node, affine: _Affine, graph: onnx_ir.Graph) -> bool:
    import numpy as np
    import onnx_ir as ir

    weight = _numbers(conv.inputs[1])
    assert weight is not None
    bias = _numbers(conv.inputs[2]) if _has_bias(conv) else np.zeros(affine.scale.shape)
    if bias is None or bias.shape != affine.scale.shape:
        return False
    per_channel = affine.scale.reshape(
        (-1,) + (1,) * (weight.ndim - 1)
        if conv.op_type == "Conv"
        else (1, -1) + (1,) * (weight.ndim - 2)
    )
    new_weight = (weight * per_channel).astype(np.float32)
    new_bias = (bias * affine.scale + affine.shift).astype(np.float32)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return False
    base = conv.outputs[0].name or "conv"
    result, folded = conv.outputs[0], affine.node.outputs[0]
    conv.replace_input_with(1, _new_initializer(graph, f"{base}.weight", new_weight))
    if len(conv.inputs) < 3:
        conv.resize_inputs(3)
    conv.replace_input_with(2, _new_initializer(graph, f"{base}.bias", new_bias))
    ir.convenience.replace_nodes_and_values(graph, conv, [affine.node], [], [folded], [result])
    return True


def _new_initializer(graph: onnx_ir.Graph, base: str, array: np.ndarray) -> onnx_ir.Value:
    import onnx_ir as ir

    name, number = base, 0
    while name in graph.initializers:
        number += 1
        name = f"{base}.{number}"
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def _has_bias(conv: onnx_ir.Node) -> bool:
    return len(conv.inputs) > 2 and conv.inputs[2] is not None


def _channels(conv: onnx_ir.Node) -> int:
    """Give the number of output channels; 0 where the weights cannot be folded into."""
    weight = _numbers(conv.inputs[1])
    if weight is None or weight.ndim < 3:
        return 0
    if _has_bias(conv) and _numbers(conv.inputs[2]) is None:
        return 0
    if conv.op_type == "Conv":
        return int(weight.shape[0])
    group = conv.attributes.get("group")
    if group is not None and group.as_int() != 1:
        return 0
    return int(weight.shape[1])


def _rank(conv: onnx_ir.Node) -> int:
    weight = _numbers(conv.inputs[1])
    return 0 if weight is None else weight.ndim


def _numbers(value: onnx_ir.Value | None) -> np.ndarray | None:
    """Give a float32 initializer as float64, or None."""
    import numpy as np
    import onnx_ir as ir

    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.nbytes > _LARGEST_BYTES:
        return None
    return np.asarray(tensor.numpy(), dtype=np.float64)
