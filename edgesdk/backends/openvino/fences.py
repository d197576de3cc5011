"""Keep OpenVINO from rounding averages that a Q/DQ graph leaves in float.

Its low-precision transformations take an AveragePool for one that keeps 8 bits as soon as any
QuantizeLinear lies behind it, whoever else reads the result: through a Concat, or a Clip, it
then rounds the average to the grid of what is averaged, half a step off what the graph says
(measured with OpenVINO 2026.4.1 on its processor plugin; the global pool and ReduceMean are
left alone). A Clip to all finite numbers in front of the pool changes nothing and ends what is
moved along in 8 bits: the pool then computes in float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fence_pools"]

#: Since this version a Clip takes its bounds as inputs.
_OPSET = 11


def fence_pools(model: ir.Model) -> ir.Model:
    """Put a Clip in front of every AveragePool that is not itself quantized.

    Args:
        model: A float graph or a Q/DQ graph; it stays as it is.

    Returns:
        A copy with fences, or ``model`` where none are needed.
    """
    if not any(_is_open(node) for node in model.graph) or not _is_quantized(model):
        return model
    import numpy as np
    import onnx_ir as ir

    fenced = model.clone()
    graph = fenced.graph
    taken = {value.name for node in graph for value in node.outputs}
    taken.update(value.name for value in (*graph.inputs, *graph.initializers.values()))

    def fresh(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    bounds = []
    limits = np.finfo(np.float32)
    for wanted, number in (("fence.least", limits.min), ("fence.most", limits.max)):
        name = fresh(wanted)
        tensor = ir.Tensor(np.array(number, np.float32), name=name)
        bound = ir.Value(
            name=name,
            shape=ir.Shape([]),
            type=ir.TensorType(ir.DataType.FLOAT),
            const_value=tensor,
        )
        graph.register_initializer(bound)
        bounds.append(bound)
    for node in list(graph):
        if not _is_open(node):
            continue
        source = node.inputs[0]
        assert source is not None
        output = ir.Value(
            name=fresh(f"{source.name}.fenced"), shape=source.shape, type=source.type
        )
        clip = ir.Node("", "Clip", [source, *bounds], outputs=[output], name=output.name)
        graph.insert_before(node, clip)
        node.replace_input_with(0, output)
    return fenced


def _is_quantized(model: ir.Model) -> bool:
    return (model.opset_imports.get("") or 0) >= _OPSET and any(
        node.op_type == "QuantizeLinear" for node in model.graph
    )


def _is_open(node: ir.Node) -> bool:
    """Say whether it is an AveragePool of float32 with a reader that keeps the float."""
    import onnx_ir as ir

    if node.op_type != "AveragePool" or node.domain not in ("", "ai.onnx"):
        return False
    source = node.inputs[0] if node.inputs else None
    if source is None or (source.dtype or node.outputs[0].dtype) != ir.DataType.FLOAT:
        return False
    return not _only_quantized(node.outputs[0], through=("Relu",))


def _only_quantized(value: ir.Value, *, through: tuple[str, ...]) -> bool:
    """Say whether a result is read by QuantizeLinear only, at most through one of these."""
    if value.is_graph_output() or not value.uses():
        return False
    return all(
        reader.op_type == "QuantizeLinear"
        or (reader.op_type in through and _only_quantized(reader.outputs[0], through=()))
        for reader, _ in value.uses()
    )
