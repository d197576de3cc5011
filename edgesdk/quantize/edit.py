"""Small edits of a float graph that several of the quantizer's steps make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.quantize._graph import constant_value

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["channel_axis_of_input", "give_constant", "group_of", "is_transposed", "set_bias"]


def give_constant(
    graph: onnx_ir.Graph, node: onnx_ir.Node, position: int, array: np.ndarray
) -> None:
    """Let ``node`` read ``array`` at ``position``; others keep what they share with it now."""
    import onnx_ir as ir

    old = node.inputs[position] if position < len(node.inputs) else None
    base = (old.name if old is not None else f"{node.name}.{position}") or "constant"
    name, number = f"{base}.new", 1
    while name in graph.initializers:
        number += 1
        name = f"{base}.new{number}"
    alone = old is not None and old.is_initializer() and len(old.uses()) == 1
    if old is not None and alone and not old.is_graph_output():
        old.const_value, old.shape = ir.Tensor(array, name=old.name), ir.Shape(array.shape)
        return
    value = constant_value(name, array)
    graph.register_initializer(value)
    if position >= len(node.inputs):
        node.resize_inputs(position + 1)
    node.replace_input_with(position, value)


def set_bias(graph: onnx_ir.Graph, node: onnx_ir.Node, bias: np.ndarray) -> None:
    """Give a Conv, ConvTranspose or Gemm another bias."""
    import numpy as np

    give_constant(graph, node, 2, bias.reshape(-1).astype(np.float32))


def group_of(node: onnx_ir.Node) -> int:
    """Give the number of groups of a convolution."""
    group = node.attributes.get("group")
    return 1 if group is None else int(group.as_int())


def is_transposed(node: onnx_ir.Node) -> bool:
    """Say whether a Gemm reads its weights transposed."""
    transposed = node.attributes.get("transB")
    return transposed is not None and bool(transposed.as_int())


def channel_axis_of_input(op: str) -> int | None:
    """Give the axis that numbers the input channels of a compute operator's activations."""
    if op in ("Conv", "ConvTranspose"):
        return 1
    return -1 if op in ("Gemm", "MatMul") else None
