"""What a node's operands are decides whether it is laid out in 8 bits, and how."""

from __future__ import annotations

import numpy as np
import pytest

from edgesdk.quantize.layout import Layout
from tests.unit.quantize.floats import SHIPPED, laid_out, named
from tests.unit.quantize.modes import normal

SAME = "<pads = [1, 1, 1, 1]>"
W = {"w": normal(4, 4, 3, 3)}
IMAGE = "float[1, 4, 8, 8]"


def _weights(layout: Layout) -> dict[str, int | None]:
    return {use.node: use.axis for use in layout.weights}


# Weights


@pytest.mark.parametrize(
    ("line", "axis"),
    [
        ("Gemm (x, w)", 1),
        ("Gemm <transB = 1> (x, w)", 0),
        ("MatMul (x, w)", 1),
    ],
)
def test_channels_of_a_dense_weight_are_what_it_gives(line: str, axis: int) -> None:
    text = f"g (float[2, 4] x) => (float[2, 4] y) {{ y = {line} }}"
    model = named(text, {"w": normal(4, 4)})
    assert _weights(laid_out(model, "onnxruntime-cpu")) == {"y": axis}
    assert _weights(laid_out(model, "litert-int8")) == {"y": None}


@pytest.mark.parametrize(("group", "axis"), [(1, 1), (2, None)])
def test_a_transposed_convolution_has_channels_in_front_only_without_groups(
    group: int, axis: int | None
) -> None:
    text = f"""g ({IMAGE} x) => (float[1, {4 * group}, 9, 9] y)
    {{ y = ConvTranspose <group = {group}> (x, w) }}"""
    model = named(text, {"w": normal(4, 4, 2, 2)})
    assert _weights(laid_out(model, "litert-int8")) == {"y": axis}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Gemm <transA = 1> (t, w)", "its first input is transposed"),
        ("Gemm (x, x)", "its weights are not constants"),
        ("Gemm (x, w, column)", "its third input is not one constant for each column"),
        ("Gemm (x, w, x)", "its third input is not one constant for each column"),
        ("MatMul (x, vector)", "it has an operand of one dimension"),
        ("Gemm (x, w, inf)", "its bias holds NaN or infinite values"),
        ("Gemm (x, huge)", "its weights hold NaN or infinite values"),
        ("MatMul (empty, nothing)", "its weights are empty"),
        ("Gemm (w, w)", "its data are constants"),
    ],
)
def test_products_that_no_kernel_computes_stay_float_with_the_reason(
    line: str, reason: str
) -> None:
    text = f"""g (float[4, 4] x, float[4, 4] t, float[4, 0] empty) =>
      (float[4, 4] z, float[N, M] y)
    {{ z = Gemm (x, w)
       y = {line} }}"""
    if "vector" in line:
        text = text.replace("float[N, M] y", "float[N] y")
    weights = {
        "w": normal(4, 4),
        "column": normal(4, 1),
        "vector": normal(4),
        "inf": np.full(4, np.inf, "f4"),
        "huge": np.full((4, 4), np.inf, "f4"),
        "nothing": np.zeros((0, 4), "f4"),
    }
    assert laid_out(named(text, weights), "onnxruntime-cpu").left == {"y": reason}


@pytest.mark.parametrize("by", SHIPPED)
def test_a_product_of_two_activations_reads_both_and_has_no_weights(by: str) -> None:
    model = named(
        "g (float[2, 4, 4] x, float[2, 4, 4] z) => (float[2, 4, 4] y) { y = MatMul (x, z) }"
    )
    layout = laid_out(model, by)
    assert layout.units["y"].reads == (0, 1)
    assert layout.weights == []


def test_a_constant_on_the_left_is_stored_as_an_activation_is() -> None:
    model = named(
        "g (float[2, 4, 4] x) => (float[2, 4, 4] y) { y = MatMul (w, x) }", {"w": normal(4, 4)}
    )
    layout = laid_out(model, "onnxruntime-cpu")
    unit = layout.units["y"]
    assert (unit.reads, unit.constants, layout.weights) == ((1,), (0,), [])


def test_constant_biases_are_found_and_computed_ones_keep_a_node_in_float() -> None:
    text = f"""g ({IMAGE} x, float[4] v) => ({IMAGE} y, {IMAGE} z)
    {{ y = Conv {SAME} (x, w, b)
       z = Conv {SAME} (x, w, v) }}"""
    layout = laid_out(named(text, {**W, "b": normal(4)}), "onnxruntime-cpu")
    assert layout.biases == [("y", 2)]
    assert layout.left == {"z": "its bias is not a constant"}


# What is no float32


@pytest.mark.parametrize("by", SHIPPED)
@pytest.mark.parametrize("kind", ["float16", "double"])
def test_other_floats_stay_as_they_are(by: str, kind: str) -> None:
    text = f"""g ({IMAGE} x, {kind}[1, 4, 8, 8] d) => ({IMAGE} y, {kind}[1, 4, 8, 8] z)
    {{ y = Conv {SAME} (x, w)
       z = Conv {SAME} (d, wd) }}"""
    other = normal(4, 4, 3, 3).astype("f2" if kind == "float16" else "f8")
    left = laid_out(named(text, {**W, "wd": other}), by).left
    assert left == {"z": "it works on float16" if kind == "float16" else "it works on float64"}


@pytest.mark.parametrize("by", SHIPPED)
def test_whole_numbers_stay_as_they_are_even_where_ranks_are_unknown(by: str) -> None:
    text = f"""g ({IMAGE} x, int64[K] s, int64[2] v) => ({IMAGE} y, int64[A, B] z)
    {{ y = Conv {SAME} (x, w)
       r = Reshape (v, s)
       u = Concat <axis = 0> (r, r)
       z = Flatten (u) }}"""
    left = laid_out(named(text, W), by).left
    assert left == dict.fromkeys("ruz", "it works on int64")


@pytest.mark.parametrize("by", SHIPPED)
def test_a_pool_that_gives_indices_too_stays_float(by: str) -> None:
    text = f"""g ({IMAGE} x) => (float[1, 4, 4, 4] y, int64[1, 4, 4, 4] i)
    {{ c = Conv {SAME} (x, w)
       p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
       y = Conv {SAME} (p, w) }}"""
    assert laid_out(named(text, W), by).left == {"p": "it gives int64"}


# Control flow


@pytest.mark.parametrize("by", SHIPPED)
def test_bodies_of_control_flow_stay_float_and_say_so(by: str) -> None:
    text = f"""g ({IMAGE} x, bool f) => ({IMAGE} y, {IMAGE} z)
    {{ c = Conv {SAME} (x, w)
       y = Conv {SAME} (c, w)
       z = If (f) <
           then_branch = a () => ({IMAGE} t) {{ t = Relu (c) }},
           else_branch = b () => ({IMAGE} e) {{ e = Conv {SAME} (c, w) }}
       > }}"""
    layout = laid_out(named(text, W), by)
    assert layout.left == {"z": "the bodies of If stay in float"}
    assert set(layout.units) == {"c", "y"}


def test_pads_with_another_value_than_zero_stay_float() -> None:
    text = f"""g ({IMAGE} x) => ({IMAGE} y, {IMAGE} z)
    {{ a = Pad (x, pads, zero)
       y = Conv (a, w)
       b = Pad (x, pads, six)
       z = Conv (b, w) }}"""
    weights = {
        **W,
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "zero": np.array(0, "f4"),
        "six": np.array(6, "f4"),
    }
    layout = laid_out(named(text, weights), "openvino")
    assert layout.left == {"b": "it pads with another value than 0"}
