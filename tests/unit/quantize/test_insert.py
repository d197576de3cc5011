"""What a layout becomes in the graph: names, types, scales, and who shares constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.quantize.floats import (
    SHIPPED,
    array_of,
    named,
    nodes,
    samples,
    shipped,
    static,
)
from tests.unit.quantize.modes import far, normal, run

SAME = "<pads = [1, 1, 1, 1]>"
IMAGE = "float[1, 4, 8, 8]"
TWO_ENDS = f"""two ({IMAGE} left, {IMAGE} right) => (float[1, 8, 8, 8] k, {IMAGE} c, {IMAGE} r)
{{ c = Conv {SAME} (left, w, b)
   d = Conv {SAME} (right, w, b)
   k = Concat <axis = 1> (c, d)
   r = Neg (c) }}"""
CONV = {"w": normal(4, 4, 3, 3), "b": normal(4, seed=3)}


def _names(values: list[ir.Value]) -> list[str | None]:
    return [value.name for value in values]


def _stored(model: ir.Model, base: str) -> ir.Node:
    """Give the node that dequantizes a stored constant."""
    (found,) = (
        node
        for node in nodes(model, "DequantizeLinear")
        if node.inputs[0] is not None and node.inputs[0].name == f"{base}.quantized"
    )
    return found


def _made_by(model: ir.Model, name: str) -> ir.Node:
    """Give the QuantizeLinear that takes the tensor of that name in the float graph."""
    (found,) = (
        node for node in nodes(model, "QuantizeLinear") if node.name == f"{name}.quantize"
    )
    return found


@pytest.mark.parametrize("by", SHIPPED)
def test_inputs_and_outputs_keep_names_order_and_types(by: str) -> None:
    model = named(TWO_ENDS, CONV)
    whole = static(model, by).model
    assert _names(list(whole.graph.inputs)) == ["left", "right"]
    assert _names(list(whole.graph.outputs)) == ["k", "c", "r"]
    assert all(one.dtype == ir.DataType.FLOAT for one in whole.graph.outputs)
    assert far(model, whole, **samples(model)[0]) < 0.05


@pytest.mark.parametrize("by", ["litert-int8", "onnxruntime-cpu"])
def test_an_output_that_is_read_too_is_read_as_it_is_given(by: str) -> None:
    model = named(TWO_ENDS, CONV)
    whole = static(model, by).model
    _, c, r = run(whole, **samples(model)[0])
    assert np.array_equal(r, -c)


def test_an_input_that_is_given_back_keeps_its_name_and_its_numbers() -> None:
    text = f"through ({IMAGE} x) => ({IMAGE} y, {IMAGE} x) {{ y = Conv {SAME} (x, w, b) }}"
    model = named(text, CONV)
    sample = samples(model)[0]
    whole = static(model, "litert-int8").model
    assert _names(list(whole.graph.inputs)) == ["x"]
    assert np.array_equal(run(whole, **sample)[1], sample["x"])


def test_names_that_the_graph_has_already_are_not_given_twice() -> None:
    text = f"""g ({IMAGE} x) => ({IMAGE} y)
    {{ c = Conv {SAME} (x, w, b)
       y = Conv {SAME} (c, v, b) }}"""
    model = named(text, {**CONV, "v": normal(4, 4, 3, 3, seed=5)})
    first, last = model.graph
    first.name, last.name = "x.quantize", "y.float"
    model.graph.initializers["v"].name = "w.quantized"
    whole = static(model).model
    names = [node.name for node in whole.graph]
    assert len(set(names)) == len(names)
    assert far(model, whole, **samples(model)[0]) < 0.05


@pytest.mark.parametrize(
    ("activations", "weights"),
    [
        ("uint8-asymmetric", "int8-per-channel-symmetric"),
        ("uint8-asymmetric", "int8-per-tensor-symmetric"),
        ("uint8-asymmetric", "uint8-per-tensor-asymmetric"),
        ("int8-asymmetric", "int8-per-channel-symmetric"),
        ("int8-asymmetric", "int8-per-tensor-symmetric"),
        ("int8-symmetric", "int8-per-channel-symmetric"),
        ("int8-symmetric", "int8-per-tensor-symmetric"),
    ],
)
@pytest.mark.parametrize("by", ["onnxruntime-cpu", "openvino"])
def test_numbers_are_of_the_types_that_the_scheme_names(
    activations: str, weights: str, by: str
) -> None:
    model = named(TWO_ENDS, CONV)
    whole = static(model, shipped(by, activations, weights)).model
    for node in nodes(whole, "QuantizeLinear"):
        zero = array_of(node.inputs[2])
        assert zero.dtype.name == activations.split("-", maxsplit=1)[0]
        assert array_of(node.inputs[1]).dtype == np.float32
        assert not (zero.any() and activations.endswith("-symmetric"))
    weight = _stored(whole, "w")
    assert array_of(weight.inputs[0]).dtype.name == weights.split("-", maxsplit=1)[0]
    if "per-channel" in weights:
        assert array_of(weight.inputs[1]).shape == (4,)
        assert weight.attributes["axis"].as_int() == 0
    else:
        assert array_of(weight.inputs[1]).shape == ()
        assert "axis" not in weight.attributes
    if weights.endswith("-symmetric"):
        assert not array_of(weight.inputs[2]).any()
        assert array_of(weight.inputs[0]).min() >= -127  # narrow, as the rules say


@pytest.mark.parametrize("weights", ["int8-per-channel-symmetric", "int8-per-tensor-symmetric"])
def test_bias_scales_are_input_scale_times_weight_scale(weights: str) -> None:
    model = named(TWO_ENDS, CONV)
    whole = static(model, shipped("onnxruntime-cpu", "", weights)).model
    for node, source in (("c", "left"), ("d", "right")):
        bias = _stored(whole, f"{node}.bias")
        step = array_of(_made_by(whole, source).inputs[1])
        scale = array_of(_stored(whole, "w").inputs[1])
        assert array_of(bias.inputs[0]).dtype == np.int32
        assert np.array_equal(array_of(bias.inputs[1]), step * scale)
        assert not array_of(bias.inputs[2]).any()
        numbers = array_of(bias.inputs[0]) * array_of(bias.inputs[1]).astype("f8")
        assert np.abs(numbers - CONV["b"]).max() <= (step * scale).max() / 2


@pytest.mark.parametrize("by", ["openvino", "tensorrt"])
def test_biases_stay_float_where_the_rules_say_so(by: str) -> None:
    whole = static(named(TWO_ENDS, CONV), by).model
    (conv, _) = nodes(whole, "Conv")
    assert np.array_equal(array_of(conv.inputs[2]), CONV["b"])


def test_tensors_of_one_group_share_scale_and_zero_point() -> None:
    whole = static(named(TWO_ENDS, CONV), "litert-int8").model
    steps = {node.name: node.inputs[1:] for node in nodes(whole, "QuantizeLinear")}
    first = steps["c.quantize"]
    assert steps["d.quantize"] == steps["k.quantize"] == first
    assert steps["left.quantize"][0] is not first[0]


def test_a_weight_that_two_nodes_read_is_stored_once() -> None:
    done = static(named(TWO_ENDS, CONV))
    convolutions = nodes(done.model, "Conv")
    assert len({one.inputs[1] for one in convolutions}) == 1
    assert done.quantized_weights == 1


def test_a_weight_read_along_both_axes_has_scales_for_each() -> None:
    text = """g (float[2, 8] x) => (float[2, 8] y, float[2, 8] z)
    { y = Gemm (x, w)
      z = Gemm <transB = 1> (x, w) }"""
    weight = normal(8, 8) * np.logspace(-2, 2, 8, dtype="f4")
    model = named(text, {"w": weight})
    done = static(model)
    axes = [
        node.attributes["axis"].as_int()
        for node in nodes(done.model, "DequantizeLinear")
        if "axis" in node.attributes
    ]
    assert sorted(axes) == [0, 1]
    assert far(model, done.model, **samples(model)[0]) < 0.05


def test_the_constant_of_an_elementwise_node_has_a_scale_of_its_own() -> None:
    text = f"""g ({IMAGE} x) => ({IMAGE} y)
    {{ c = Conv {SAME} (x, w, b)
       m = Mul (c, tiny)
       y = Conv {SAME} (m, w, b) }}"""
    tiny = np.abs(normal(1, 4, 1, 1)) * np.float32(1e-3)
    model = named(text, {**CONV, "tiny": tiny})
    whole = static(model).model
    stored = _stored(whole, "tiny")
    assert array_of(stored.inputs[0]).dtype == np.uint8  # of the activations' type
    assert np.isclose(array_of(stored.inputs[1]), tiny.max() / 255)
    assert far(model, whole, **samples(model)[0]) < 0.05


def test_a_constant_that_is_moved_shares_the_scale_of_what_it_is_moved_with() -> None:
    text = f"""g ({IMAGE} x) => (float[1, 5, 8, 8] k, {IMAGE} c)
    {{ c = Conv {SAME} (x, w, b)
       k = Concat <axis = 1> (c, still) }}"""
    model = named(text, {**CONV, "still": normal(1, 1, 8, 8) * np.float32(0.1)})
    whole = static(model, "litert-int8").model
    assert _stored(whole, "still").inputs[1] is _made_by(whole, "c").inputs[1]
    assert far(model, whole, **samples(model)[0]) < 0.05


@pytest.mark.parametrize("by", ["litert-int8", "edgetpu"])
@pytest.mark.parametrize(
    ("op", "scale", "zero"),
    [("Softmax", 1 / 256, -128), ("Sigmoid", 1 / 256, -128), ("Tanh", 1 / 128, 0)],
)
def test_scales_that_a_specification_fixes_are_those(
    by: str, op: str, scale: float, zero: int
) -> None:
    text = f"""g ({IMAGE} x) => ({IMAGE} y)
    {{ c = Conv {SAME} (x, w, b)
       y = {op} (c) }}"""
    whole = static(named(text, CONV), by).model
    step = _made_by(whole, "y")
    assert float(array_of(step.inputs[1])) == scale
    assert int(array_of(step.inputs[2])) == zero


def test_sixteen_bits_have_symmetric_steps_and_float_biases() -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g ({IMAGE} x) => ({IMAGE} y) {{ y = Conv {SAME} (x, w, b) }}"""
    model = named(text, CONV)
    scheme = shipped("onnxruntime-cpu", "int16-symmetric")
    whole = static(model, scheme, precision="int16x8").model
    for node in nodes(whole, "QuantizeLinear"):
        assert array_of(node.inputs[2]).dtype == np.int16
        assert not array_of(node.inputs[2])
    (conv,) = nodes(whole, "Conv")
    assert np.array_equal(array_of(conv.inputs[2]), CONV["b"])
    assert far(model, whole, **samples(model)[0]) < 0.01


def test_no_constant_is_left_that_nobody_reads() -> None:
    whole = static(named(TWO_ENDS, CONV)).model
    assert all(value.uses() for value in whole.graph.initializers.values())
