"""Half precision inside, float32 at the ends; what half precision cannot hold stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.errors import QuantizeError
from edgesdk.quantize.half import to_half
from edgesdk.quantize.values import Converted
from tests.unit.quantize.modes import (
    far,
    graph,
    normal,
    ops,
    run,
    size,
    speech,
    speech_accuracy,
)

NETWORK = """
network (float[1, 3, 8, 8] image) => (float[1, 5] scores)
{
    [conv] c = Conv <pads = [1, 1, 1, 1]> (image, w, b)
    [relu] r = Relu (c)
    [pool] p = GlobalAveragePool (r)
    [flat] f = Flatten (p)
    [head] g = Gemm <transB = 1> (f, v)
    [soft] scores = Softmax (g)
}
"""
TWO_BRANCHES = """
choice (float[2, 4] x, bool flag) => (float[2, 4] y)
{
    [scale] h = Mul (x, w)
    [choice] z = If (flag) <
        then_branch = yes () => (float[2, 4] t) { [inside] a = Add (h, w)
            t = Relu (a) },
        else_branch = no () => (float[2, 4] e) { e = Identity (h) }
    >
    [last] y = Neg (z)
}
"""
ROUNDS = """
rounds (float[4] x, int64 count) => (float[4] last, float[K, 4] all)
{
    go = Constant <value = bool {1}> ()
    [loop] last, all = Loop (count, go, x) <
        body = one (int64 i, bool before, float[4] state)
            => (bool after, float[4] next, float[4] seen)
        {
            after = Identity (before)
            [grow] next = Mul (state, w)
            [see] seen = Sub (next, x)
        }
    >
}
"""


def _network() -> ir.Model:
    weights = {"w": normal(4, 3, 3, 3), "b": normal(4), "v": normal(5, 4)}
    return graph(NETWORK, weights)


def _reasons(done: Converted) -> dict[str, str]:
    return {node.name: node.reason for node in done.left_float}


def _dtype(value: ir.Value) -> str:
    assert value.dtype is not None
    return value.dtype.name


def test_the_inside_is_half_and_the_ends_are_float() -> None:
    model = _network()
    done = to_half(model)
    (conv,) = [node for node in done.model.graph if node.op_type == "Conv"]
    assert [_dtype(value) for value in conv.inputs if value is not None] == ["FLOAT16"] * 3
    assert [_dtype(value) for value in done.model.graph.inputs] == ["FLOAT"]
    assert [_dtype(value) for value in done.model.graph.outputs] == ["FLOAT"]
    assert [value.name for value in done.model.graph.outputs] == ["scores"]
    assert (done.converted_nodes, done.left_float, done.findings) == (6, (), ())
    assert ops(done.model)["Cast"] == 2
    assert far(model, done.model, image=normal(1, 3, 8, 8)) < 5e-3


def test_the_weights_take_half_the_room() -> None:
    text = "wide (float[1, 256] x) => (float[1, 256] y) { y = MatMul (x, w) }"
    model = graph(text, {"w": normal(256, 256)})
    assert size(to_half(model).model) < 0.51 * size(model)


def test_the_model_that_was_given_stays_as_it_was() -> None:
    model = _network()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    first = ir.to_proto(to_half(model).model).SerializeToString(deterministic=True)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert ir.to_proto(to_half(model).model).SerializeToString(deterministic=True) == first


@pytest.mark.parametrize("kept", ["relu", "Relu"])
def test_the_recipe_keeps_nodes_by_name_and_by_operator(kept: str) -> None:
    done = to_half(_network(), keep_float=(kept,))
    assert _reasons(done) == {"relu": "the recipe keeps it in float"}
    (relu,) = [node for node in done.model.graph if node.op_type == "Relu"]
    assert _dtype(relu.outputs[0]) == "FLOAT"
    assert far(_network(), done.model, image=normal(1, 3, 8, 8)) < 5e-3


def test_keeping_everything_is_an_error_with_its_reason() -> None:
    kept = ("conv", "relu", "pool", "flat", "head", "soft")
    with pytest.raises(QuantizeError) as caught:
        to_half(_network(), keep_float=kept)
    assert str(caught.value) == (
        "cannot convert network: no node was converted to float16 "
        "(the recipe keeps it in float)"
    )
    assert caught.value.hint == "build with --precision fp32"


def test_a_model_of_whole_numbers_has_nothing_to_convert() -> None:
    model = graph("counting (int64[2] x) => (int64[2] y) { y = Add (x, x) }")
    with pytest.raises(QuantizeError, match=r"converted to float16 \(none works on float32\)"):
        to_half(model)


def test_a_weight_beyond_the_range_keeps_its_node_in_float() -> None:
    text = """large (float[2] x) => (float[2] y)
    { [big] a = Mul (x, w)
      [small] b = Mul (a, v)
      y = Neg (b) }"""
    weights = {"w": np.array([1e5, 2], "f4"), "v": np.array([1e-4, 1], "f4")}
    model = graph(text, weights)
    done = to_half(model)
    assert _reasons(done) == {
        "big": "its constant 'w' holds 1e+05, more than half precision has (65504)"
    }
    assert far(model, done.model, x=np.array([0.5, 1], "f4")) < 5e-3


def test_infinite_weights_are_the_same_in_half_precision() -> None:
    text = "mask (float[2] x) => (float[2] y) { a = Add (x, w)\n y = Relu (a) }"
    done = to_half(graph(text, {"w": np.array([-np.inf, 1], "f4")}))
    assert done.left_float == ()
    assert run(done.model, x=np.ones(2, "f4"))[0].tolist() == [0, 2]


def test_bounds_beyond_the_range_become_infinite() -> None:
    text = "bounded (float[2] x) => (float[2] y) { y = Clip (x, low, high) }"
    bounds = {"low": np.array(0, "f4"), "high": np.array(3e38, "f4")}
    done = to_half(graph(text, bounds))
    assert done.left_float == ()
    assert run(done.model, x=np.array([-1, 60000], "f4"))[0].tolist() == [0, 60000]


def test_an_epsilon_that_half_precision_takes_for_0_stays_until_it_is_divided_by() -> None:
    text = """norm (float[2, 4] x) => (float[2, 4] y)
    { m = ReduceMean <axes = [1]> (x)
      d = Sub (x, m)
      s = Mul (d, d)
      v = ReduceMean <axes = [1]> (s)
      [add] e = Add (v, eps)
      [root] r = Sqrt (e)
      [inverse] i = Reciprocal (r)
      [apply] y = Mul (d, i) }"""
    model = graph(text, {"eps": np.array(1e-12, "f4")})
    done = to_half(model)
    assert _reasons(done).keys() == {"add", "root", "inverse", "apply"}
    assert "is 1e-12, which is 0 in half precision" in _reasons(done)["add"]
    assert np.isfinite(run(done.model, x=np.ones((2, 4), "f4"))[0]).all()
    assert far(model, done.model, x=normal(2, 4)) < 5e-3


def test_weights_that_become_0_are_counted() -> None:
    text = "tiny (float[4] x) => (float[4] y) { y = Mul (x, w) }"
    done = to_half(graph(text, {"w": np.array([1e-9, 1, -1e-20, 0], "f4")}))
    (finding,) = done.findings
    assert (finding.code, finding.severity, finding.subject) == ("half-flushed", "info", "w")
    assert finding.message.startswith("2 of 4 numbers in 1 weights are 0 in half precision")


def test_a_weight_that_both_kinds_of_node_read_is_kept_in_both_forms() -> None:
    text = """shared (float[4] x) => (float[4] y, float[4] z)
    { [half] y = Mul (x, w)
      [kept] z = Mul (x, w) }"""
    model = graph(text, {"w": normal(4)})
    done = to_half(model, keep_float=("kept",))
    assert sorted(_dtype(v) for v in done.model.graph.initializers.values()) == [
        "FLOAT",
        "FLOAT16",
    ]
    assert far(model, done.model, x=normal(4, seed=2)) < 5e-3


def test_branches_are_converted_inside_and_give_float() -> None:
    model = graph(TWO_BRANCHES, {"w": normal(4)})
    done = to_half(model)
    assert done.left_float == ()
    (choice,) = [node for node in done.model.graph if node.op_type == "If"]
    branch = choice.attributes["then_branch"].as_graph()
    (inside,) = [node for node in branch if node.name == "inside"]
    assert [_dtype(value) for value in inside.inputs if value is not None] == ["FLOAT16"] * 2
    for flag in (True, False):
        assert far(model, done.model, x=normal(2, 4), flag=np.array(flag)) < 5e-3


def test_weights_that_lie_in_a_branch_shrink_there() -> None:
    text = """inner (float[2, 64] x, bool flag) => (float[2, 64] y)
    { y = If (flag) <
        then_branch = yes () => (float[2, 64] t) { t = MatMul (x, w) },
        else_branch = no () => (float[2, 64] e) { e = Neg (x) }
      > }"""
    model = graph(text, {"w": normal(64, 64)})
    (choice,) = list(model.graph)
    branch = choice.attributes["then_branch"].as_graph()
    weight = model.graph.initializers.pop("w")
    branch.register_initializer(weight)
    done = to_half(model)
    assert size(done.model) < 0.55 * size(model)
    for flag in (True, False):
        assert far(model, done.model, x=normal(2, 64), flag=np.array(flag)) < 5e-3


def test_a_kept_branch_stays_in_float_with_all_that_is_in_it() -> None:
    model = graph(TWO_BRANCHES, {"w": normal(4)})
    done = to_half(model, keep_float=("If",))
    assert _reasons(done)["inside"] == "the recipe keeps it in float"
    for flag in (True, False):
        assert far(model, done.model, x=normal(2, 4), flag=np.array(flag)) < 5e-3


def test_a_loop_carries_float_and_computes_in_half() -> None:
    model = graph(ROUNDS, {"w": np.array([1.5, 0.5, -1, 1], "f4")})
    done = to_half(model)
    assert done.left_float == ()
    assert done.converted_nodes >= 2
    assert far(model, done.model, x=normal(4), count=np.array(5)) < 5e-3


ANGLES = "its numbers are angles, which need more digits than half precision has"
SQUARES = "its squares leave the range of half precision"
KEEPERS = [
    ("float[2, 4]", "y = CumSum (x, one)", "its running sum needs more digits than half"),
    ("float", "y = ReduceSumSquare <keepdims = 0> (x)", SQUARES),
    ("float[2, 4]", "a = Mul (x, thousand)\n y = Sin (a)", ANGLES),
    ("float[2, 4]", "y = EyeLike (x)", "onnxruntime has no half-precision kernel for it"),
    (
        "float[2, 4]",
        "q = QuantizeLinear (x, step)\n y = DequantizeLinear (q, step)",
        "steps of quantization stay in float32",
    ),
    (
        "int64[2]",
        "s = Cast <to = 1> (n)\n h = Div (s, two)\n f = Floor (h)\n y = Cast <to = 7> (f)",
        "its numbers become whole numbers: sizes or indices",
    ),
]


@pytest.mark.parametrize(("result", "body", "reason"), KEEPERS)
def test_what_needs_float32_keeps_it(result: str, body: str, reason: str) -> None:
    text = f"""one (float[2, 4] x, int64[2] n) => ({result} y, float[2, 4] z)
    {{ {body}
      z = Neg (x) }}"""
    constants = {
        "one": np.array(1),
        "two": np.array(2, "f4"),
        "thousand": np.array(1000, "f4"),
        "step": np.array(0.1, "f4"),
    }
    model = graph(text, {name: array for name, array in constants.items() if name in body})
    done = to_half(model)
    assert done.converted_nodes == 1
    assert done.left_float
    assert all(node.reason.startswith(reason) for node in done.left_float)
    assert far(model, done.model, x=normal(2, 4), n=np.array([4099, 7])) < 5e-3


def test_scales_of_a_picture_stay_in_float() -> None:
    text = """larger (float[1, 1, 3, 3] x) => (float[1, 1, 6, 6] y)
    { h = Relu (x)
      y = Resize <mode = "linear"> (h, , scales) }"""
    model = graph(text, {"scales": np.array([1, 1, 2, 2], "f4")})
    done = to_half(model)
    assert done.converted_nodes == 2
    assert _dtype(done.model.graph.initializers["scales"]) == "FLOAT"
    assert far(model, done.model, x=normal(1, 1, 3, 3)) < 5e-3


def test_nodes_that_name_the_type_of_their_result_name_half() -> None:
    text = """named (float[2, 3] x, int64[2] n) => (float[2, 3] y)
    { c = ConstantOfShape <value = float[1] {2.5}> (n)
      k = Cast <to = 1> (n)
      s = ReduceSum <keepdims = 0> (k)
      a = Mul (x, c)
      y = Add (a, s) }"""
    model = graph(text)
    done = to_half(model)
    assert done.left_float == ()
    assert far(model, done.model, x=normal(2, 3), n=np.array([2, 3])) < 5e-3


def test_results_without_a_type_have_that_of_their_input() -> None:
    text = "untyped (float[2] x) => (float[2] y) { a = Relu (x)\n b = Neg (a)\n y = Abs (b) }"
    model = graph(text)
    for node in list(model.graph)[:2]:
        node.outputs[0].type = None
    done = to_half(model)
    assert (done.converted_nodes, done.left_float) == (3, ())
    assert far(model, done.model, x=normal(2)) < 5e-3


def test_an_empty_weight_converts_like_any_other() -> None:
    text = "none (float[2] x) => (float[2] y) { y = Concat <axis = 0> (x, w) }"
    done = to_half(graph(text, {"w": np.zeros(0, "f4")}))
    assert run(done.model, x=np.array([1, 2], "f4"))[0].tolist() == [1, 2]


def test_a_runtimes_own_operator_stays_in_float() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    own (float[2] x) => (float[2] y)
    { h = Relu (x)
      [own] g = com.microsoft.QuickGelu (h)
      y = Neg (g) }"""
    model = graph(text)
    done = to_half(model)
    reasons = _reasons(done)
    assert "not known" in reasons["own"]
    assert far(model, done.model, x=normal(2)) < 5e-3


@pytest.mark.parametrize("name", ["fsdd_transformer", "fsdd_gru_lstm", "fsdd_dscnn"])
def test_a_speech_model_hears_the_same_in_half(name: str, shared_assets: Path) -> None:
    model = speech(shared_assets, name)
    done = to_half(model)
    assert size(done.model) < 0.62 * size(model)
    if name != "fsdd_dscnn":
        assert (
            abs(
                speech_accuracy(shared_assets, done.model)
                - speech_accuracy(shared_assets, model)
            )
            < 0.011
        )


UNARY = ("Relu", "Neg", "Sigmoid", "Tanh", "Abs", "Identity")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(UNARY + BINARY + ("Shape",)), st.integers(0, 7), st.integers(0, 7)
        ),
        min_size=1,
        max_size=8,
    ),
    kept=st.sets(st.sampled_from([f"n{k}" for k in range(8)]), max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_any_mixture_of_half_and_float_nodes_agrees_with_float(
    steps: list[tuple[str, int, int]], kept: set[str]
) -> None:
    values, lines = ["x", "w"], []
    for number, (op, first, second) in enumerate(steps):
        a, b = values[first % len(values)], values[second % len(values)]
        if op == "Shape":
            lines.append(f"s{number} = Shape ({a})")
            lines.append(f"[n{number}] v{number} = Expand ({b}, s{number})")
        elif op in UNARY:
            lines.append(f"[n{number}] v{number} = {op} ({a})")
        else:
            lines.append(f"[n{number}] v{number} = {op} ({a}, {b})")
        values.append(f"v{number}")
    outputs = ", ".join(f"float[2, 3] {name}" for name in values[2:])
    body = "\n".join(lines)
    model = graph(f"random (float[2, 3] x) => ({outputs}) {{ {body} }}", {"w": normal(2, 3)})
    try:
        done = to_half(model, keep_float=kept)
    except QuantizeError:
        assert kept
        return
    x = normal(2, 3, seed=3) / 2
    for a, b in zip(run(model, x=x), run(done.model, x=x), strict=True):
        assert np.abs(a - b).max() < 0.02 * max(1.0, float(np.abs(a).max()))
