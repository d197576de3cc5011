"""A Q/DQ graph seen as its kernels: pairs looked through, constants told, crossings known."""

from __future__ import annotations

import onnx_ir as ir
from onnx import parser

from edgesdk.model.kernels import kernel_graph
from edgesdk.model.shapes import with_shapes

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
m (float[1, 4] x) => (float[1, 2] y, float[1, 4] s)
<float sx = {0.1}, uint8 zx = {128}, int8[4, 2] wq = {1, 2, 3, 4, 5, 6, 7, 8},
 float sw = {0.05}, int8 zw = {0}, float sy = {0.2}, uint8 zy = {100}>
{
  xq = QuantizeLinear (x, sx, zx)
  xd = DequantizeLinear (xq, sx, zx)
  wd = DequantizeLinear (wq, sw, zw)
  p = MatMul (xd, wd)
  pq = QuantizeLinear (p, sy, zy)
  y = DequantizeLinear (pq, sy, zy)
  s = Sigmoid (x)
}
"""


def graph() -> ir.Model:
    return with_shapes(ir.serde.deserialize_model(parser.parse_model(GRAPH)))


def test_pairs_are_looked_through() -> None:
    seen = kernel_graph(graph())
    assert [node.op for node in seen.nodes.values()] == ["MatMul", "Sigmoid"]
    product = seen.nodes[3]
    assert product.inputs == ("x", "wd")
    assert product.constant_inputs == (False, True)
    assert [value.dtype for value in product.input_types if value] == ["float32", "float32"]


def test_what_reads_or_gives_quantized_numbers_is_known() -> None:
    seen = kernel_graph(graph())
    assert set(seen.quantized) == {3}


def test_the_quantized_tensor_crosses_where_it_is_dequantized() -> None:
    seen = kernel_graph(graph())
    assert seen.crossings[3, "x"] == "xq"
    assert seen.crossings[6, "x"] == "x"


def test_outputs_stand_for_what_was_quantized() -> None:
    seen = kernel_graph(graph())
    assert seen.finals == {"p": ("y",), "s": ("s",)}
