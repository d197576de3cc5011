"""Integer weights and activations without data: the kernels it is for, and near to float."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.errors import QuantizeError
from edgesdk.quantize.dynamic import to_dynamic_int8
from edgesdk.quantize.values import Converted
from tests.unit.quantize.modes import (
    far,
    graph,
    kernels,
    normal,
    ops,
    run,
    size,
    speech,
    speech_accuracy,
)

#: How far 8 bits may be from float, as a share of the largest output.
NEAR = 0.04
DENSE = """
dense (float[M, 64] x) => (float[M, 32] y)
{ [product] h = MatMul (x, w)
  [bias] a = Add (h, b)
  y = Relu (a) }
"""


def _dense() -> ir.Model:
    return graph(DENSE, {"w": normal(64, 32), "b": normal(32)})


def _reasons(done: Converted) -> dict[str, str]:
    return {node.name: node.reason for node in done.left_float}


def _convert(model: ir.Model, runtime: str = "onnxruntime", **more: object) -> Converted:
    return to_dynamic_int8(model, runtime=runtime, least_weights=1, **more)  # type: ignore[arg-type]  # any keyword


def test_a_product_becomes_one_kernel(tmp_path: Path) -> None:
    model = _dense()
    done = to_dynamic_int8(model, runtime="any")
    assert (done.converted_nodes, done.left_float) == (1, ())
    assert ops(done.model) == {
        "DynamicQuantizeLinear": 1,
        "MatMulInteger": 1,
        "Cast": 1,
        "Mul": 2,
        "Add": 1,
        "Relu": 1,
    }
    assert kernels(done.model, tmp_path) == {"DynamicQuantizeMatMul": 1, "Relu": 1}
    assert far(model, done.model, x=normal(5, 64)) < NEAR


def test_products_that_share_an_activation_quantize_it_once(tmp_path: Path) -> None:
    text = """three (float[M, 64] x) => (float[M, 32] q, float[M, 32] k, float[M, 32] v)
    { q = MatMul (x, wq)
      k = MatMul (x, wk)
      v = MatMul (x, wv) }"""
    model = graph(text, {f"w{n}": normal(64, 32, seed=ord(n)) for n in "qkv"})
    done = _convert(model)
    found = kernels(done.model, tmp_path)
    assert found == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 3}
    assert far(model, done.model, x=normal(3, 64)) < NEAR


def test_weights_have_a_scale_for_each_column() -> None:
    weight = normal(64, 32) * np.logspace(-3, 3, 32, dtype="f4")
    model = graph(
        "steep (float[M, 64] x) => (float[M, 32] y) { y = MatMul (x, w) }", {"w": weight}
    )
    (float_y,), (y,) = (run(one, x=normal(99, 64)) for one in (model, _convert(model).model))
    assert (np.abs(y - float_y) / np.abs(float_y).max(axis=0)).max() < NEAR


GEMMS = [
    ("transB = 1", (32, 64), "b", (32,)),
    ("alpha = 0.5, beta = 2.0", (64, 32), "b", (1, 32)),
    ("alpha = -2.0", (64, 32), "b", ()),
    ("beta = 0.5", (64, 32), "b", (3, 32)),
    ("beta = 0.5", (64, 32), "c", (3, 32)),
    ("beta = 0.0", (64, 32), "b", (32,)),
    ("transB = 1", (32, 64), "", ()),
]


@pytest.mark.parametrize(("attributes", "shape", "bias", "bias_shape"), GEMMS)
def test_a_gemm_means_the_same(
    attributes: str, shape: tuple[int, ...], bias: str, bias_shape: tuple[int, ...]
) -> None:
    text = f"""gemm (float[3, 64] x, float[3, 32] c) => (float[3, 32] y, float[3, 32] z)
    {{ [gemm] y = Gemm <{attributes}> (x, w{", " + bias if bias else ""})
      z = Neg (c) }}"""
    weights = {"w": normal(*shape)} | ({"b": normal(*bias_shape)} if bias == "b" else {})
    model = graph(text, weights)
    done = _convert(model)
    assert "Gemm" not in ops(done.model)
    assert far(model, done.model, x=normal(3, 64), c=normal(3, 32, seed=5)) < NEAR


def test_a_gemm_with_a_bias_is_one_kernel(tmp_path: Path) -> None:
    text = "head (float[3, 64] x) => (float[3, 32] y) { y = Gemm <transB = 1> (x, w, b) }"
    done = _convert(graph(text, {"w": normal(32, 64), "b": normal(1, 32)}))
    assert kernels(done.model, tmp_path) == {"DynamicQuantizeMatMul": 1}


REASONS = [
    ("y = MatMul (x, x)", "both its inputs are computed"),
    ("y = MatMul (w, x)", "its weights are its first input"),
    ("y = Gemm <transA = 1> (x, w)", "its first input is transposed"),
    ("y = MatMul (x, batch)", "its weights are a batch of matrices"),
    ("y = MatMul (x, vector)", "its weights are a vector"),
    ("y = MatMul (x, infinite)", "its weights hold NaN or infinite values"),
    ("y = MatMul (x, empty)", "its weights are empty"),
    ("y = Conv (s, kernel)", "integer convolutions without calibration are slower than float"),
]


@pytest.mark.parametrize(("body", "reason"), REASONS)
def test_what_stays_in_float_says_why(body: str, reason: str) -> None:
    text = f"""reasons (float[8, 8] x, float[1, 2, 8] s) => (float[Z] y0)
    {{ [it] {body}
      t = Reshape (y, flat)
      y0 = Relu (t) }}"""
    constants = {
        "w": normal(8, 8),
        "batch": normal(2, 8, 8),
        "vector": normal(8),
        "infinite": np.full((8, 8), np.inf, "f4"),
        "empty": np.zeros((8, 0), "f4"),
        "kernel": normal(2, 2, 3),
    }
    chosen = {
        name: array
        for name, array in constants.items()
        if f"{name})" in body or f"({name}," in body
    }
    model = graph(text, chosen | {"flat": np.array([-1])})
    with pytest.raises(QuantizeError) as caught:
        _convert(model)
    assert f"cannot quantize reasons: no node was quantized ({reason}" in str(caught.value)
    assert caught.value.hint == "build with --precision fp32"


def test_few_weights_and_kept_nodes_stay_in_float() -> None:
    text = """mixed (float[M, 64] x) => (float[M, 4] y)
    { [one] h = MatMul (x, w)
      [two] k = MatMul (h, v)
      [three] y = MatMul (k, u) }"""
    model = graph(text, {"w": normal(64, 64), "v": normal(64, 32), "u": normal(32, 4)})
    done = to_dynamic_int8(model, runtime="any", keep_float=("two",))
    assert _reasons(done) == {
        "two": "the recipe keeps it in float",
        "three": "its 128 weights are too few to gain from it (at least 1024)",
    }
    assert far(model, done.model, x=normal(2, 64)) < NEAR


def test_only_the_operators_that_are_asked_for_are_converted() -> None:
    with pytest.raises(QuantizeError, match="MatMul is not among the operators to convert"):
        to_dynamic_int8(_dense(), runtime="any", ops=("Gemm",))


def test_weights_of_7_bits_are_below_64() -> None:
    done = _convert(_dense(), reduce_range=True)
    (integers,) = [
        value.const_value.numpy()
        for value in done.model.graph.initializers.values()
        if value.dtype == ir.DataType.INT8 and value.const_value is not None
    ]
    assert np.abs(integers).max() == 63


def test_columns_of_zeros_stay_zero() -> None:
    weight = normal(64, 32)
    weight[:, 3] = 0
    model = graph(
        "zeros (float[M, 64] x) => (float[M, 32] y) { y = MatMul (x, w) }", {"w": weight}
    )
    assert not run(_convert(model).model, x=normal(4, 64))[0][:, 3].any()


def test_the_model_that_was_given_stays_as_it_was() -> None:
    model = _dense()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    first = ir.to_proto(_convert(model).model).SerializeToString(deterministic=True)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert ir.to_proto(_convert(model).model).SerializeToString(deterministic=True) == first


def test_a_table_keeps_a_scale_for_each_row_and_shrinks() -> None:
    text = "words (int64[N] ids) => (float[N, 32] y) { [look] y = Gather (table, ids) }"
    table = normal(500, 32) * np.logspace(-2, 2, 500, dtype="f4")[:, None]
    model = graph(text, {"table": table})
    done = to_dynamic_int8(model, runtime="any")
    assert size(done.model) < 0.31 * size(model)
    ids = np.array([0, 499, -1, 7])
    (got,) = run(done.model, ids=ids)
    assert (
        np.abs(got - table[ids]) <= np.abs(table[ids]).max(axis=1, keepdims=True) / 250
    ).all()


def test_a_table_with_another_reader_stays_in_float() -> None:
    text = """tied (int64[N] ids) => (float[N, 32] y, float[64, 32] z)
    { [look] y = Gather (table, ids)
      z = Neg (table) }"""
    with pytest.raises(QuantizeError, match="its table is read by Neg too"):
        to_dynamic_int8(graph(text, {"table": normal(64, 32)}), runtime="any")


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_an_lstm_uses_the_runtimes_own(direction: str) -> None:
    sides = 2 if direction == "bidirectional" else 1
    text = f"""recurrent (float[S, B, 16] x)
        => (float[S, {sides}, B, 24] y, float[{sides}, B, 24] h)
    {{ [lstm] y, h = LSTM <hidden_size = 24, direction = "{direction}"> (x, w, r, b) }}"""
    weights = {
        "w": normal(sides, 96, 16) / 4,
        "r": normal(sides, 96, 24, seed=2) / 8,
        "b": normal(sides, 192, seed=3),
    }
    model = graph(text, weights)
    done = to_dynamic_int8(model, runtime="onnxruntime")
    assert ops(done.model) == {"DynamicQuantizeLSTM": 1}
    assert far(model, done.model, x=normal(12, 3, 16)) < NEAR
    assert size(done.model) < 0.45 * size(model)
    with pytest.raises(QuantizeError, match="ONNX has no integer operator for it"):
        to_dynamic_int8(model, runtime="other")


BRANCHES = """
branches (float[M, 64] x, bool flag) => (float[M, 32] y)
{
    h = Relu (x)
    y = If (flag) <
        then_branch = yes () => (float[M, 32] t) { [inner] t = MatMul (h, w) },
        else_branch = no () => (float[M, 32] e) { [other] g = MatMul (h, w)
            e = Neg (g) }
    >
}
"""


def test_products_in_branches_are_converted_there(tmp_path: Path) -> None:
    model = graph(BRANCHES, {"w": normal(64, 32)})
    done = _convert(model)
    assert done.converted_nodes == 2
    assert kernels(done.model, tmp_path)["DynamicQuantizeMatMul"] == 2
    for flag in (True, False):
        assert far(model, done.model, x=normal(3, 64), flag=np.array(flag)) < NEAR
    with pytest.raises(QuantizeError, match="the recipe keeps it in float"):
        _convert(model, keep_float=("If",))


CELL = """
cell (float[2, 32] x, int64 count) => (float[2, 32] last, float[32, 32] unchanged)
{
    go = Constant <value = bool {1}> ()
    last, unchanged = Loop (count, go, x, w) <
        body = one (int64 i, bool before, float[2, 32] state, float[32, 32] weights)
            => (bool after, float[2, 32] next, float[32, 32] same)
        {
            after = Identity (before)
            h = MatMul (state, weights)
            next = Tanh (h)
            same = Identity (weights)
        }
    >
}
"""


def test_weights_that_a_loop_carries_unchanged_are_constants(tmp_path: Path) -> None:
    text = CELL.replace("last, float[32, 32] unchanged)", "last)", 1)
    model = graph(text, {"w": normal(32, 32) / 6})
    done = _convert(model)
    assert done.converted_nodes == 1
    assert kernels(done.model, tmp_path)["DynamicQuantizeMatMul"] == 1
    assert size(done.model) < 0.5 * size(model)
    for count in (0, 1, 4):
        assert far(model, done.model, x=normal(2, 32), count=np.array(count)) < NEAR


def test_what_a_loop_carries_to_the_models_output_stays() -> None:
    with pytest.raises(QuantizeError, match="both its inputs are computed"):
        _convert(graph(CELL, {"w": normal(32, 32) / 6}))


def test_a_transformer_hears_the_same_with_integer_products(
    shared_assets: Path, tmp_path: Path
) -> None:
    model = speech(shared_assets, "fsdd_transformer")
    done = to_dynamic_int8(model, runtime="onnxruntime")
    found = kernels(done.model, tmp_path)
    assert (done.converted_nodes, found["MatMulInteger"]) == (12, 0)
    assert found["DynamicQuantizeMatMul"] + found["MatMulIntegerToFloat"] == 12
    before = speech_accuracy(shared_assets, model)
    assert speech_accuracy(shared_assets, done.model) >= before - 0.011


def test_recurrent_cells_hear_the_same_with_integer_weights(
    shared_assets: Path, tmp_path: Path
) -> None:
    model = speech(shared_assets, "fsdd_gru_lstm")
    done = to_dynamic_int8(model, runtime="onnxruntime")
    found = kernels(done.model, tmp_path)
    assert (found["DynamicQuantizeMatMul"], found["DynamicQuantizeLSTM"]) == (2, 1)
    assert size(done.model) < 0.5 * size(model)
    before = speech_accuracy(shared_assets, model)
    assert speech_accuracy(shared_assets, done.model) >= before - 0.011


@given(
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    rows=st.integers(1, 5),
    gemm=st.booleans(),
    power=st.integers(-20, 20),
)
@settings(max_examples=25, deadline=None)
def test_any_stack_of_products_stays_near_float(
    widths: list[int], rows: int, gemm: bool, power: int
) -> None:
    lines, weights, last = [], {}, "x"
    for number, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        weights[f"w{number}"] = normal(wide, narrow, seed=number) * np.float32(2.0**power)
        op = "Gemm" if gemm and number % 2 else "MatMul"
        lines.append(f"h{number} = {op} ({last}, w{number})")
        last = f"h{number}"
    text = f"stack (float[{rows}, {widths[0]}] x) => (float[{rows}, {widths[-1]}] {last})"
    model = graph(f"{text} {{ {chr(10).join(lines)} }}", weights)
    done = _convert(model)
    assert done.converted_nodes == len(lines)
    # by the products of norms, as a product may cancel to nearly 0
    x = normal(rows, widths[0])
    bound = float(np.abs(x).max())
    for weight in weights.values():
        bound *= float(np.abs(weight).sum(axis=0).max())
    for a, b in zip(run(model, x=x), run(done.model, x=x), strict=True):
        assert np.abs(a - b).max() <= 0.02 * len(lines) * bound
