"""Graphs with an open batch, taken at a batch of one."""

from __future__ import annotations

import onnx_ir as ir
from onnx import parser

from edgesdk.model.nodes import tensor_info
from edgesdk.model.shapes import at_batch_one, folded_outputs, open_batch, with_shapes

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
m (float[N, 2, 3] x) => (float[N, 6] y)
<int64[1] zero = {0}, int64[1] rest = {-1}>
{
  shape = Shape (x)
  first = Gather (shape, zero)
  wanted = Concat <axis = 0> (first, rest)
  flat = Reshape (x, wanted)
  y = Relu (flat)
}
"""


def graph() -> ir.Model:
    return with_shapes(ir.serde.deserialize_model(parser.parse_model(GRAPH)))


def test_an_open_batch_becomes_one_everywhere() -> None:
    opened = graph()
    assert open_batch(opened) == ("x",)
    fixed = at_batch_one(opened)
    assert tensor_info(fixed.graph.inputs[0]).shape == (1, 2, 3)
    assert tensor_info(fixed.graph.outputs[0]).shape == (1, 6)
    assert open_batch(fixed) == ()
    assert open_batch(opened) == ("x",), "the graph itself stays as it was"


def test_what_only_computes_a_fixed_shape_is_folded() -> None:
    fixed = at_batch_one(graph())
    assert folded_outputs(fixed) == {"shape", "first", "wanted"}


def test_an_open_shape_is_not_folded() -> None:
    assert "wanted" not in folded_outputs(graph())


def test_equal_shapes_are_all_folded_though_one_constant_is_left_of_them() -> None:
    """Reshapes of two branches to the same computed shape."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2,6] x, float[2,6] z) => (float y, float v)
       <int64[1] zero = {0}, int64[1] rest = {-1}> {
        s = Shape(x)
        a = Gather<axis = 0>(s, zero)
        t = Concat<axis = 0>(a, rest)
        y = Reshape<allowzero = 0>(x, t)
        s2 = Shape(z)
        a2 = Gather<axis = 0>(s2, zero)
        t2 = Concat<axis = 0>(a2, rest)
        v = Reshape<allowzero = 0>(z, t2)
    }
    """
    model = with_shapes(ir.serde.deserialize_model(parser.parse_model(text)))
    assert folded_outputs(model) == {"s", "a", "t", "s2", "a2", "t2"}
