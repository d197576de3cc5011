"""Bring float graphs into the form that 8-bit kernels are made for; read quantized ones."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from edgesdk.quantize._graph import constant_value
from edgesdk.quantize.edit import give_constant, is_transposed
from edgesdk.quantize.operands import constant_array

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["is_quantized", "prepare", "without_qdq"]

_MARKS = frozenset(
    {"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear", "ConvInteger"}
    | {"MatMulInteger", "QLinearConv", "QLinearMatMul"}
)
_OWN_MARKS = ("QLinear", "QGemm", "QAttention", "DynamicQuantize", "MatMulInteger", "QEmbed")


def is_quantized(model: onnx_ir.Model) -> bool:
    """Say whether a graph computes with quantized numbers already, in bodies too."""
    return any(
        node.op_type in _MARKS
        or (node.domain == "com.microsoft" and node.op_type.startswith(_OWN_MARKS))
        for node in model.graph.all_nodes()
    )


def prepare(model: onnx_ir.Model, *, keep_float: Collection[str] = ()) -> onnx_ir.Model:
    """Give a copy with plain Gemms: alpha and beta in the weights, a MatMul's bias joined.

    What ``keep_float`` names, by node or operator, keeps its name and operator. Later steps go
    by names, so missing and repeated ones are replaced; the graph's inputs and outputs keep
    theirs.
    """
    from onnx_ir.passes import common

    copy = model.clone()
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    common.NameFixPass()(copy)
    for node in list(copy.graph):
        if node.graph is None or node.domain:
            continue
        if node.op_type == "MatMul":
            _join_bias(copy.graph, node, keep_float)
        elif node.op_type == "Gemm":
            _fold_factors(copy.graph, node)
    return copy


def _join_bias(graph: onnx_ir.Graph, node: onnx_ir.Node, keep_float: Collection[str]) -> None:
    """Make one Gemm of a MatMul of two dimensions and the Add of a constant after it."""
    import onnx_ir as ir

    weight, result = constant_array(node.inputs[1]), node.outputs[0]
    source = node.inputs[0]
    uses = result.uses()
    if weight is None or weight.ndim != 2 or len(uses) != 1 or result.is_graph_output():
        return
    if source is None or source.shape is None or len(source.shape) != 2:
        return
    if source.dtype != ir.DataType.FLOAT or constant_array(source) is not None:
        return
    after, position = next(iter(uses))
    if after.op_type != "Add" or after.domain or after.graph is not graph:
        return
    if {node.name, node.op_type, after.name, after.op_type} & set(keep_float):
        return
    bias_value = after.inputs[1 - position]
    bias = constant_array(bias_value)
    if bias is None or bias.shape not in ((weight.shape[1],), (1, weight.shape[1])):
        return
    gemm = ir.node("Gemm", [source, node.inputs[1], bias_value], name=node.name)
    final = after.outputs[0]
    gemm.outputs[0].name = f"{result.name}.biased"
    gemm.outputs[0].shape, gemm.outputs[0].type = final.shape, final.type
    graph.insert_before(node, [gemm])
    name = final.name
    final.replace_all_uses_with(gemm.outputs[0], replace_graph_outputs=True)
    graph.remove([after, node], safe=True)
    gemm.outputs[0].name = name
    if bias.ndim != 1:
        give_constant(graph, gemm, 2, bias.reshape(-1))


def _fold_factors(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    """Take alpha and beta of a Gemm into its constants."""
    import numpy as np

    for name, position in (("alpha", 1), ("beta", 2)):
        attribute = node.attributes.get(name)
        value = node.inputs[position] if position < len(node.inputs) else None
        factor = 1.0 if attribute is None else attribute.as_float()
        array = constant_array(value)
        if factor == 1.0 or array is None or array.dtype != np.float32:
            continue
        give_constant(graph, node, position, array * np.float32(factor))
        node.attributes.pop(name)
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    weight = constant_array(node.inputs[1])
    if bias is None or weight is None or bias.dtype != np.float32:
        return
    wide = weight.shape[0 if is_transposed(node) else 1]
    one_for_all = bias.size == 1 and wide != 1
    if one_for_all or (
        bias.ndim != 1 and bias.size == wide and bias.shape[-1:] in ((), (wide,))
    ):
        give_constant(graph, node, 2, np.broadcast_to(bias.reshape(-1), (wide,)).copy())


def without_qdq(model: onnx_ir.Model) -> onnx_ir.Model:
    """Give a copy in float: stored weights expanded, pairs on activations taken out.

    Only Q/DQ graphs can be read back; kernels of other forms stay as they are.
    """
    from onnx_ir.passes import common

    copy = model.clone()
    for node in list(copy.graph):
        if node.op_type != "DequantizeLinear" or node.domain not in ("", "com.microsoft"):
            continue
        source = node.inputs[0]
        if source is None:
            continue
        whole = constant_array(source)
        if whole is not None:
            _expand(copy.graph, node, whole)
            continue
        quantize = source.producer()
        if quantize is None or quantize.op_type != "QuantizeLinear":
            continue
        before = quantize.inputs[0]
        if before is not None:
            _bypass(copy.graph, node, before)
    for node in list(copy.graph):
        # a Sum of one: what parted a float kernel from the pairs, see `guard`
        alone = node.inputs[0] if node.op_type == "Sum" and len(node.inputs) == 1 else None
        if alone is not None and not node.domain:
            _bypass(copy.graph, node, alone)
    common.RemoveUnusedNodesPass()(copy)
    return copy


def _bypass(graph: onnx_ir.Graph, node: onnx_ir.Node, before: onnx_ir.Value) -> None:
    """Let the readers of a pair's result read what it was made of; an output keeps its name."""
    import onnx_ir as ir

    result = node.outputs[0]
    if not result.is_graph_output():
        result.replace_all_uses_with(before)
        return
    name = result.name
    if before.producer() is None or before.is_graph_output():
        same = ir.node("Identity", [before], name=f"{node.name}.same")
        graph.insert_before(node, [same])
        before = same.outputs[0]
    before.shape, before.type = result.shape, result.type
    result.replace_all_uses_with(before, replace_graph_outputs=True)
    result.name, before.name = f"{name}.dequantized", name


def _expand(graph: onnx_ir.Graph, node: onnx_ir.Node, whole: np.ndarray) -> None:
    import numpy as np

    scale, zero = constant_array(node.inputs[1]), None
    if len(node.inputs) > 2:
        zero = constant_array(node.inputs[2])
    if scale is None or "block_size" in node.attributes or node.outputs[0].is_graph_output():
        return
    shape = [1] * whole.ndim
    if scale.ndim == 1 and scale.size > 1:
        axis = node.attributes.get("axis")
        shape[1 if axis is None else axis.as_int()] = -1
        scale = scale.reshape(shape)
        zero = None if zero is None else zero.reshape(shape)
    numbers = whole.astype(np.float64) - (0.0 if zero is None else zero.astype(np.float64))
    array = (numbers * scale.astype(np.float64)).astype(scale.dtype)
    name = f"{node.outputs[0].name}.float"
    value = constant_value(name, array)
    graph.register_initializer(value)
    node.outputs[0].replace_all_uses_with(value)
