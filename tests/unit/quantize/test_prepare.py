"""Plain Gemms before quantizing, and float graphs back from Q/DQ ones: the same numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.model.save import model_bytes
from edgesdk.quantize.dynamic import to_dynamic_int8
from edgesdk.quantize.prepare import is_quantized, prepare, without_qdq
from tests.unit.quantize.floats import SHIPPED, array_of, named, nodes, samples, static
from tests.unit.quantize.modes import far, normal, ops, run

DENSE = """dense (float[4, 8] x) => (float[4, 6] y)
{ h = MatMul (x, w)
  y = Add (h, b) }"""
SAME = 1e-6


def _weights(*bias: int) -> dict[str, np.ndarray]:
    return {"w": normal(8, 6), "b": normal(*bias, seed=2)}


def _gemm(attributes: str, weights: dict[str, np.ndarray]) -> ir.Model:
    text = f"g (float[4, 8] x) => (float[4, 6] y) {{ y = Gemm <{attributes}> (x, w, b) }}"
    return named(text, weights)


def _prepared(model: ir.Model) -> ir.Model:
    """Prepare, and hold that the numbers stay and the model given does too."""
    before = model_bytes(model)
    done = prepare(model)
    assert model_bytes(model) == before
    assert far(model, done, **samples(model)[0]) < SAME
    return done


@pytest.mark.parametrize("shape", [(6,), (1, 6)])
@pytest.mark.parametrize("order", ["h, b", "b, h"])
def test_a_product_and_its_bias_become_one_gemm(shape: tuple[int, ...], order: str) -> None:
    done = _prepared(named(DENSE.replace("h, b", order), _weights(*shape)))
    (gemm,) = done.graph
    assert (gemm.op_type, gemm.name) == ("Gemm", "h")
    assert array_of(gemm.inputs[2]).shape == (6,)
    assert [value.name for value in done.graph.outputs] == ["y"]


@pytest.mark.parametrize("shape", [(4, 1), (4, 6), ()])
def test_what_is_added_otherwise_than_by_column_stays_an_add(shape: tuple[int, ...]) -> None:
    assert ops(_prepared(named(DENSE, _weights(*shape)))) == {"MatMul": 1, "Add": 1}


def test_a_product_that_others_read_stays_one() -> None:
    text = DENSE.replace("y)\n", "y, float[4, 6] n)\n").replace(
        "(h, b)", "(h, b)\n n = Neg (h)"
    )
    assert ops(_prepared(named(text, _weights(6)))) == {"MatMul": 1, "Add": 1, "Neg": 1}
    text = DENSE.replace("y)\n", "y, float[4, 6] h)\n")
    assert ops(_prepared(named(text, _weights(6)))) == {"MatMul": 1, "Add": 1}


def test_a_product_of_three_dimensions_stays_one() -> None:
    text = DENSE.replace("[4, ", "[2, 4, ")
    assert ops(_prepared(named(text, _weights(6)))) == {"MatMul": 1, "Add": 1}


@pytest.mark.parametrize("kept", ["h", "y", "MatMul", "Add"])
def test_what_the_recipe_keeps_by_either_name_is_not_joined(kept: str) -> None:
    model = named(DENSE, _weights(6))
    assert ops(prepare(model, keep_float=(kept,))) == {"MatMul": 1, "Add": 1}


@pytest.mark.parametrize("transposed", [0, 1])
def test_factors_go_into_the_constants(transposed: int) -> None:
    weight = normal(*((6, 8) if transposed else (8, 6)))
    model = _gemm(
        f"alpha = 0.5, beta = 3.0, transB = {transposed}", {"w": weight, "b": normal(6, seed=2)}
    )
    (gemm,) = _prepared(model).graph
    assert set(gemm.attributes) == {"transB"}
    assert np.allclose(array_of(gemm.inputs[1]), weight * 0.5)


def test_a_constant_that_others_read_keeps_its_numbers_for_them() -> None:
    text = """g (float[4, 8] x) => (float[4, 6] y, float[4, 6] z)
    { y = Gemm <alpha = 0.5> (x, w)
      z = Gemm (x, w) }"""
    _prepared(named(text, {"w": normal(8, 6)}))


def test_an_initializer_that_is_an_output_keeps_its_numbers() -> None:
    text = """g (float[4, 8] x) => (float[4, 6] y, float[8, 6] w)
    { y = Gemm <alpha = 0.5> (x, w) }"""
    _prepared(named(text, {"w": normal(8, 6)}))


@pytest.mark.parametrize("shape", [(1, 6), (1,), (1, 1), ()])
def test_a_bias_becomes_one_number_for_each_column(shape: tuple[int, ...]) -> None:
    (gemm,) = _prepared(_gemm("transB = 0", _weights(*shape))).graph
    bias = gemm.inputs[2]
    assert array_of(bias).shape == (6,)
    assert bias is not None
    assert bias.shape == ir.Shape((6,))  # what the value says of itself agrees


@pytest.mark.parametrize("shape", [(4, 1), (4, 6)])
def test_a_bias_that_differs_by_row_stays_as_it_is(shape: tuple[int, ...]) -> None:
    (gemm,) = _prepared(_gemm("transB = 0", _weights(*shape))).graph
    assert array_of(gemm.inputs[2]).shape == shape


def test_a_bias_by_row_is_not_taken_for_one_by_column() -> None:
    weights = {"w": normal(8, 4), "b": normal(4, 1) * 10, "w2": normal(8, 4)}
    text = """g (float[4, 8] x) => (float[4, 4] y, float[4, 4] z)
    { y = Gemm (x, w, b)
      z = Gemm (x, w2) }"""
    model = named(text, weights)
    done = static(model)
    assert [node.name for node in done.left_float] == ["y"]
    assert far(model, done.model, **samples(model)[0]) < 0.05


@pytest.mark.parametrize("kind", ["double", "float16"])
def test_gemms_of_other_floats_keep_their_type(kind: str) -> None:
    weights = {"w": normal(8, 6).astype("f8" if kind == "double" else "f2")}
    text = f"g ({kind}[4, 8] x) => ({kind}[4, 6] y) {{ y = Gemm <alpha = 0.5> (x, w) }}"
    (gemm,) = _prepared(named(text, weights)).graph
    assert array_of(gemm.inputs[1]).dtype == weights["w"].dtype


CONV = """conv (float[1, 4, 8, 8] x) => (float[1, 4] y, float[1, 4, 8, 8] r)
{ c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
  r = Relu (c)
  p = GlobalAveragePool (r)
  f = Flatten (p)
  y = Gemm (f, v) }"""
CONV_WEIGHTS = {"w": normal(4, 4, 3, 3), "b": normal(4), "v": normal(4, 4)}


@pytest.mark.parametrize("by", SHIPPED)
def test_a_quantized_graph_is_told_from_a_float_one_and_read_back(by: str) -> None:
    model = named(CONV, CONV_WEIGHTS)
    whole = static(model, by).model
    assert (is_quantized(model), is_quantized(whole)) == (False, True)
    back = without_qdq(whole)
    assert not is_quantized(back)
    assert ops(back) == ops(prepare(model))
    assert [value.name for value in back.graph.outputs] == ["y", "r"]
    assert far(model, back, **samples(model)[0]) < 0.04
    (conv,) = nodes(back, "Conv")
    assert np.abs(array_of(conv.inputs[1]) - CONV_WEIGHTS["w"]).max() < 0.02


def test_an_output_that_was_an_input_is_given_back_by_name() -> None:
    text = """g (float[2] x) => (float[2] y, float[2] z)
    { q = QuantizeLinear (x, s)
      y = DequantizeLinear (q, s)
      z = Neg (y) }"""
    back = without_qdq(named(text, {"s": np.array(0.1, "f4")}))
    assert ops(back) == {"Identity": 1, "Neg": 1}
    x = normal(2)
    y, z = run(back, x=x)
    assert np.array_equal(y, x)
    assert np.array_equal(z, -x)


def test_stored_weights_come_back_in_the_type_they_were_used_in() -> None:
    text = """<ir_version: 9, opset_import: ["" : 19]>
    g (float16[2, 8] x) => (float16[2, 6] y)
    { w = DequantizeLinear <axis = -1> (i, s)
      y = MatMul (x, w) }"""
    whole = np.arange(48, dtype=np.int8).reshape(8, 6)
    scales = np.linspace(0.01, 0.02, 6).astype("f2")
    model = named(text, {"i": whole, "s": scales})
    back = without_qdq(model)
    assert ops(back) == {"MatMul": 1}
    assert far(model, back, x=normal(2, 8).astype("f2")) < 2e-3


def test_kernels_of_whole_numbers_count_as_quantized_too() -> None:
    model = named(DENSE, _weights(6))
    assert is_quantized(to_dynamic_int8(model, runtime="any", least_weights=1).model)


def test_pairs_in_bodies_of_control_flow_count_too() -> None:
    text = """g (float[2] x, bool f) => (float[2] y)
    { y = If (f) <
        then_branch = a () => (float[2] t) { q = QuantizeLinear (x, s)
          t = DequantizeLinear (q, s) },
        else_branch = b () => (float[2] e) { e = Neg (x) }
    > }"""
    assert is_quantized(named(text, {"s": np.array(0.1, "f4")}))


def test_nodes_and_values_without_a_name_or_with_anothers_get_one() -> None:
    text = """g (float[1, 4, 4, 4] x) => (float[1, 4, 4, 4] y)
    { a = Conv (x, w) b = Relu (a) c = Conv (b, w)
      y = Relu (c) }"""
    model = named(text, {"w": normal(4, 4, 1, 1)})
    for node, name in zip(model.graph, ("same", "same", None, ""), strict=True):
        node.name = name
        if not node.outputs[0].is_graph_output():
            node.outputs[0].name = name
    done = prepare(model)
    assert len({node.name for node in done.graph} - {None, ""}) == 4
    values = {value.name for node in done.graph for value in node.outputs}
    assert len(values - {None, ""}) == 4
    assert [value.name for value in (*done.graph.inputs, *done.graph.outputs)] == ["x", "y"]
    assert static(model).quantized_nodes == 4
