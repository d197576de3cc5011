"""Keep onnxruntime from quantizing what stays in float.

Release 1.32 gives a float Conv, ConvTranspose or Gemm that it finds between a DequantizeLinear
and a QuantizeLinear 8-bit weights of its own, with one scale for all of them
(onnxruntime/core/optimizer/qdq_transformer/weight_bias_quantization.cc): what was kept in float
because 8 bits ruin it is then ruined after all, on the device as here. A Sum of one tensor in
front is no DequantizeLinear, computes nothing, and is not optimized away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.quantize.layout import Layout

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["guard_float"]

_TAKEN = frozenset({"Conv", "ConvTranspose", "Gemm"})


def guard_float(model: onnx_ir.Model, layout: Layout) -> None:
    """Part float kernels of a Q/DQ graph from the pairs in front of them, in place."""
    import onnx_ir as ir

    guarded: dict[str | None, onnx_ir.Value] = {}
    taken = {node.name for node in model.graph}
    taken.update(value.name for node in model.graph for value in node.outputs)
    for node in list(model.graph):
        if node.op_type not in _TAKEN or node.domain or node.name in layout.units:
            continue
        source = node.inputs[0]
        maker = None if source is None else source.producer()
        if source is None or maker is None or maker.op_type != "DequantizeLinear":
            continue
        if not _leads_to_quantize(node):
            continue
        if source.name not in guarded:
            name = f"{source.name}.kept"
            while name in taken:
                name += ".kept"
            guard = ir.node("Sum", [source], name=name)
            result = guard.outputs[0]
            result.name, result.shape, result.type = guard.name, source.shape, source.type
            model.graph.insert_after(maker, [guard])
            guarded[source.name] = result
        node.replace_input_with(0, guarded[source.name])


def _leads_to_quantize(node: onnx_ir.Node) -> bool:
    """Follow a result through activations to a QuantizeLinear that alone reads it."""
    while True:
        uses = node.outputs[0].uses()
        if len(uses) != 1:
            return False
        node, _ = next(iter(uses))
        if node.op_type not in ("Relu", "Clip"):
            return node.op_type == "QuantizeLinear"
