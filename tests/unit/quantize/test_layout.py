"""Where Q/DQ pairs go under each placement, who shares a scale, and why the rest is float."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgesdk.profiles.values import SchemeRules
from edgesdk.quantize.layout import ALONE, Layout
from tests.unit.quantize.floats import SHIPPED, laid_out, named, rules
from tests.unit.quantize.modes import normal

MIXED = "the tensors it joins have scales that are fixed to different values"
SAME = "<pads = [1, 1, 1, 1]>"
W = {"w": normal(4, 4, 3, 3)}
IMAGE = "float[1, 4, 8, 8]"
LITERT = ("litert-int8", "edgetpu")
RESIDUAL = f"""residual ({IMAGE} x) => ({IMAGE} y)
{{ a = Conv {SAME} (x, w)
   ar = Relu (a)
   b = Conv {SAME} (ar, w)
   s = Add (b, x)
   sr = Relu (s)
   y = Conv {SAME} (sr, w) }}"""


def _groups(layout: Layout) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for name, group in layout.tensors.items():
        groups.setdefault(group, set()).add(name)
    return {frozenset(group) for group in groups.values()}


def _set(*groups: str) -> set[frozenset[str]]:
    return {frozenset(group.split()) for group in groups}


# Placements, by rules of a runtime that does not exist


def test_around_operators_results_are_quantized_and_float_neighbours_are_not() -> None:
    model = named(
        f"""g ({IMAGE} x) => ({IMAGE} y)
        {{ n = Neg (x)
           c = Conv {SAME} (n, w)
           y = Neg (c) }}""",
        W,
    )
    layout = laid_out(model, rules("operators"))
    assert _groups(layout) == _set("n", "c")
    assert layout.whole == {"c"}  # n is float for whoever else reads it
    assert layout.left == dict.fromkeys(("n", "y"), "Neg has no 8-bit kernel (acme)")


def test_before_operators_results_are_left_to_their_readers() -> None:
    model = named(RESIDUAL, W)
    layout = laid_out(model, rules("inputs", fused_after={"Conv": ("Relu",)}))
    assert _groups(layout) == _set("x", "ar", "sr")
    assert layout.whole == set()


def test_everywhere_the_ends_of_the_graph_are_quantized_too() -> None:
    model = named(f"g ({IMAGE} x) => ({IMAGE} y) {{ y = Conv {SAME} (x, w) }}", W)
    layout = laid_out(model, rules("everything"))
    assert _groups(layout) == _set("x", "y")
    assert layout.whole == {"x", "y"}


def test_a_result_that_may_stay_float_is_quantized_only_for_readers_in_eight_bits() -> None:
    text = "g (float[1, 4] x) => (float[1, 4] y) { h = Gemm (x, w) y = Gemm (h, w) }"
    model = named(text.replace(") y", ")\n y"), {"w": normal(4, 4)})
    may = rules("operators", float_results=("Gemm",))
    assert _groups(laid_out(model, may)) == _set("x", "h")
    assert _groups(laid_out(model, rules("operators"))) == _set("x", "h", "y")
    assert _groups(laid_out(model, rules("everything", float_results=("Gemm",)))) == _set(
        "x", "h", "y"
    )


# Lonely kernels


@pytest.mark.parametrize("placement", ["operators", "inputs"])
def test_an_elementwise_operator_without_neighbours_in_eight_bits_stays_float(
    placement: str,
) -> None:
    model = named(
        f"""g ({IMAGE} x) => ({IMAGE} y, {IMAGE} z)
        {{ y = Conv {SAME} (x, w)
           z = Sigmoid (x) }}""",
        W,
    )
    layout = laid_out(model, rules(placement, elementwise=("Sigmoid",)))
    assert layout.left == {"z": ALONE}


def test_a_chain_that_ends_in_float_is_dropped_link_by_link() -> None:
    model = named(
        f"""g ({IMAGE} x) => ({IMAGE} y)
        {{ c = Conv {SAME} (x, w)
           s = Sigmoid (c)
           m = Mul (s, c)
           y = Neg (m) }}""",
        W,
    )
    layout = laid_out(model, rules(elementwise=("Sigmoid", "Mul")))
    assert list(layout.units) == ["c"]
    assert layout.left["s"] == layout.left["m"] == ALONE


def test_everywhere_no_operator_is_too_lonely() -> None:
    model = named(
        f"""g ({IMAGE} x) => ({IMAGE} y, {IMAGE} z)
        {{ y = Conv {SAME} (x, w)
           z = Sigmoid (x) }}""",
        W,
    )
    layout = laid_out(model, rules("everything", elementwise=("Sigmoid",)))
    assert set(layout.units) == {"y", "z"}


def test_what_moves_a_graph_input_is_fed_and_what_computes_on_it_is_not() -> None:
    text = f"""g ({IMAGE} x) => ({IMAGE} y)
    {{ m = OP (x)
       y = Conv {SAME} (m, w) }}"""
    mover = named(text.replace("OP", "Transpose <perm = [0, 1, 3, 2]>"), W)
    some = rules(same_scale=("Transpose",), elementwise=("Sigmoid",))
    assert set(laid_out(mover, some).units) == {"m", "y"}
    assert laid_out(named(text.replace("OP", "Sigmoid"), W), some).left == {"m": ALONE}


# Residual connections


def test_before_operators_an_add_spares_the_branch_that_a_convolution_makes() -> None:
    model = named(RESIDUAL, W)
    some = rules(
        "inputs", elementwise=("Add",), fused_after={"Conv": ("Relu",), "Add": ("Relu",)}
    )
    layout = laid_out(model, some)
    assert layout.units["s"].reads == (1,)
    assert "b" not in layout.tensors
    assert _groups(layout) == _set("x", "ar", "sr")


def test_around_operators_an_add_reads_both_branches_in_eight_bits() -> None:
    model = named(RESIDUAL, W)
    layout = laid_out(model, "onnxruntime-cpu")
    assert layout.units["s"].reads == (0, 1)
    assert {"b", "x", "ar", "sr", "y"} == set(layout.tensors)


def test_a_spared_branch_does_not_make_its_add_lonely_when_others_are_given_back() -> None:
    model = named(
        f"""g ({IMAGE} x) => ({IMAGE} y, {IMAGE} z)
        {{ b = Conv {SAME} (x, w)
           s = Add (b, x)
           y = Conv {SAME} (s, w)
           p = Sigmoid (y)
           k = Concat <axis = 1> (p, y)
           z = Conv {SAME} (k, w8) }}""",
        {**W, "w8": normal(4, 8, 3, 3)},
    )
    some = rules(
        "inputs",
        elementwise=("Add", "Sigmoid"),
        same_scale=("Concat",),
        fixed_outputs={"Sigmoid": (0.0, 1.0)},
    )
    layout = laid_out(model, some)
    assert layout.left["k"] == MIXED
    assert "s" in layout.units


# Groups that share a scale


@pytest.mark.parametrize("by", SHIPPED)
def test_what_moves_values_shares_one_scale_with_what_it_moves(by: str) -> None:
    model = named(
        f"""g ({IMAGE} x) => (float[1, 4, 2, 2] y, float[1, 4, 2, 2] z)
        {{ a = Conv {SAME} (x, w)
           p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
           h, t = Split <axis = 2> (p, halves)
           k = Concat <axis = 3> (h, t)
           r = Reshape (k, shape)
           y = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (r, w)
           z = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (p, w) }}""",
        {**W, "halves": np.array([2, 2]), "shape": np.array([1, 4, 4, 4])},
    )
    layout = laid_out(model, by)
    (joined,) = [group for group in _groups(layout) if "p" in group]
    # a Concat gives its result a scale of its own in onnxruntime
    alike = {"a", "p", "h", "t"}
    assert joined == (alike if by == "onnxruntime-cpu" else alike | {"k", "r"})


@pytest.mark.parametrize("by", LITERT)
@pytest.mark.parametrize(
    ("op", "interval"),
    [("Softmax", (0.0, 1.0)), ("Sigmoid", (0.0, 1.0)), ("Tanh", (-1.0, 1.0))],
)
def test_scales_that_the_rules_fix_reach_all_who_share_them(
    by: str, op: str, interval: tuple[float, float]
) -> None:
    model = named(
        f"""g ({IMAGE} x) => (float[1, 256] y)
        {{ c = Conv {SAME} (x, w)
           s = {op} (c)
           y = Reshape (s, shape) }}""",
        {**W, "shape": np.array([1, 256])},
    )
    layout = laid_out(model, by)
    assert layout.tensors["s"] == layout.tensors["y"] != layout.tensors["c"]
    assert layout.fixed == {layout.tensors["s"]: interval}


@pytest.mark.parametrize("by", LITERT)
def test_what_would_join_different_fixed_scales_stays_float(by: str) -> None:
    model = named(
        f"""g ({IMAGE} x) => (float[1, 12, 8, 8] y, {IMAGE} c, {IMAGE} z)
        {{ c = Conv {SAME} (x, w)
           s = Sigmoid (c)
           t = Tanh (c)
           y = Concat <axis = 1> (s, t, c)
           z = Conv {SAME} (s, w) }}""",
        W,
    )
    layout = laid_out(model, by)
    assert layout.left == {"y": MIXED}
    assert sorted(layout.fixed.values()) == [(-1.0, 1.0), (0.0, 1.0)]


@pytest.mark.parametrize("by", LITERT)
def test_a_constant_cannot_join_a_fixed_scale(by: str) -> None:
    text = f"""g ({IMAGE} x) => (float[1, 5, 8, 8] y)
    {{ s = Sigmoid (x)
       c = Conv {SAME} (s, w)
       y = Concat <axis = 1> (s, far) }}""".replace("y)", "y, float[1, 4, 8, 8] c)", 1)
    layout = laid_out(named(text, {**W, "far": normal(1, 1, 8, 8) * 9}), by)
    assert layout.left == {"y": MIXED}


# Activations that a kernel absorbs


def _with_activation(
    act: str, outputs: str = "", more: str = "", **weights: np.ndarray
) -> dict[str, tuple[str, ...]]:
    text = f"""g ({IMAGE} x) => ({IMAGE} y{outputs})
    {{ c = Conv {SAME} (x, w)
       a = {act}
       y = Conv {SAME} (a, w){more} }}"""
    model = named(text, {**W, **weights})
    layout = laid_out(model, "onnxruntime-cpu")
    return {name: unit.names for name, unit in layout.units.items()}


ZERO, SIX = np.array(0, "f4"), np.array(6, "f4")


@pytest.mark.parametrize(
    "act", ["Relu (c)", "Clip (c, lo, hi)", "Clip (c, lo)", "Clip (c, , hi)"]
)
def test_an_activation_behind_one_kernel_is_absorbed(act: str) -> None:
    units = _with_activation(act, lo=ZERO, hi=SIX)
    assert units["c"] == ("c", "a")


def test_an_activation_is_not_absorbed_where_its_input_is_read_twice() -> None:
    units = _with_activation("Relu (c)", f", {IMAGE} z", "\n z = Neg (c)")
    assert units["c"] == ("c",)


def test_an_activation_is_not_absorbed_where_its_input_is_an_output() -> None:
    assert _with_activation("Relu (c)", f", {IMAGE} c")["c"] == ("c",)


def test_a_clip_is_not_absorbed_where_its_bounds_are_computed() -> None:
    text = f"""g ({IMAGE} x, float hi) => ({IMAGE} y)
    {{ c = Conv {SAME} (x, w)
       a = Clip (c, lo, hi)
       y = Conv {SAME} (a, w) }}"""
    layout = laid_out(named(text, {**W, "lo": ZERO}), "onnxruntime-cpu")
    assert layout.units["c"].absorbed is None
    assert layout.left == {"a": "Clip is computed in 8 bits only as a part of another operator"}


def test_an_activation_that_the_recipe_keeps_is_not_absorbed() -> None:
    model = named(RESIDUAL, W)
    layout = laid_out(model, "onnxruntime-cpu", keep_float=("ar",), kept={"sr": "measured"})
    kept = {"ar": "the recipe keeps it in float", "s": ALONE, "sr": "measured"}
    assert layout.left == kept
    assert layout.units["a"].absorbed is None


def test_reasons_come_in_the_order_of_the_graph() -> None:
    model = named(RESIDUAL, W)
    layout = laid_out(model, SchemeRules(name="none", placement="operators", compute=("Gemm",)))
    assert list(layout.left) == ["a", "ar", "b", "s", "sr", "y"]
    assert layout.compute == []


def test_a_long_chain_that_falls_link_by_link_is_laid_out_at_once() -> None:
    links = "\n".join(f"m{number} = Mul (m{number - 1}, x)" for number in range(1, 2000))
    model = named(
        f"""g ({IMAGE} x) => ({IMAGE} y)
        {{ m0 = Conv {SAME} (x, w)
           {links}
           y = Neg (m1999) }}""",
        W,
    )
    begun = time.perf_counter()
    layout = laid_out(model, "onnxruntime-cpu")
    assert time.perf_counter() - begun < 2
    assert list(layout.units) == ["m0"]
    assert sum(reason == ALONE for reason in layout.left.values()) == 1999
