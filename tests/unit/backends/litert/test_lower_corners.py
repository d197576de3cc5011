"""Corners where a lowering gave wrong numbers, or a file that LiteRT does not take."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.backends import NodesRefused
from edgesdk.backends.litert.lower import lower_graph
from edgesdk.backends.litert.rules import why_not_lowered
from edgesdk.model.kernels import kernel_graph
from edgesdk.model.shapes import with_shapes
from tests.unit.backends.litert.graphs import build
from tests.unit.backends.litert.lowering import Arrays, LiteRT, far, in_onnxruntime

RANDOM = np.random.default_rng(5)
#: A constant of int8 with a scale for each of its rows, far apart.
ROWS: Arrays = {
    "w": RANDOM.integers(-128, 128, (3, 4)).astype(np.int8),
    "s": np.array([0.01, 0.1, 1.0], np.float32),
    "z": np.zeros(3, np.int8),
}
TWO_GRIDS: Arrays = {
    "s": np.array(0.05, np.float32),
    "fine": np.array(0.005, np.float32),
    "z": np.array(0, np.int8),
}


def inputs_of(model: ir.Model) -> dict[str, np.ndarray]:
    found = {}
    for value in model.graph.inputs:
        assert value.dtype is not None
        shape = [int(extent) for extent in value.shape or ()]
        numbers = RANDOM.normal(size=shape)
        if value.dtype.numpy().kind in "iu":
            numbers = RANDOM.integers(0, 128, shape)
        found[value.name or ""] = numbers.astype(value.dtype.numpy())
    return found


def differs(model: ir.Model) -> float:
    """Give the largest difference to onnxruntime, with and without XNNPACK."""
    given, blob = inputs_of(model), lower_graph(with_shapes(model))
    wanted = in_onnxruntime(model, given)
    found = 0.0
    for plain in (False, True):
        answers = LiteRT(blob, plain=plain).run(given)
        assert answers.keys() == wanted.keys()
        found = max(found, *(far(answers[name], wanted[name]) for name in wanted))
    return found


def refused(model: ir.Model) -> dict[str, str]:
    with pytest.raises(NodesRefused) as caught:
        lower_graph(with_shapes(model))
    return caught.value.reasons


@pytest.mark.parametrize(
    ("shape", "made"),
    [
        ("2,3,4", "y = Add(x, d)"),
        ("1,3,4", "r = Reshape(d, n) y = Add(x, r)"),
        ("4,3", "r = Reshape(d, n) y = Add(x, r)"),
        ("12", "r = Reshape(d, n) y = Add(x, r)"),
        ("6,4", "r = Concat<axis=0>(d, d) y = Add(x, r)"),
    ],
)
def test_scales_by_row_survive_another_shape(shape: str, made: str) -> None:
    text = (
        f"g (float[{shape}] x) => (float[{shape}] y) "
        f"{{ d = DequantizeLinear<axis=0>(w, s, z) {made} }}"
    )
    extents = np.array([int(each) for each in shape.split(",")])
    constants: Arrays = ROWS | ({"n": extents} if "Reshape" in made else {})
    assert differs(build(text, constants)) < 1e-5


@pytest.mark.parametrize("ends", ["float[2,4] p, float[2,4] r", "float[2,4] p, float[2,4] b"])
def test_pieces_that_go_on_two_grids_keep_what_is_between(ends: str) -> None:
    text = (
        f"g (float[2,8] x) => ({ends}) {{ "
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) t = Add(d, d) "
        "a, b = Split<axis=1, num_outputs=2>(t) "
        "aq = QuantizeLinear(a, fine, z) p = DequantizeLinear(aq, fine, z) "
        "bq = QuantizeLinear(b, s, z) r = DequantizeLinear(bq, s, z) }"
    )
    # the fine grid ends at 0.64, and the other piece goes on behind that
    assert differs(build(text, TWO_GRIDS)) < 0.02


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_integers_that_are_read_plainly_too_are_not_dequantized_for_both(kind: str) -> None:
    text = (
        f"g ({kind}[2,8] x) => (float[2,8] y, float[2,8] c) "
        "{ d = DequantizeLinear(x, s, z) y = Relu(d) c = Cast<to=1>(x) }"
    )
    constants: Arrays = TWO_GRIDS | {"z": np.array(7, kind)}
    del constants["fine"]
    assert refused(build(text, constants)) == {
        "y": "'x' is dequantized, and read as plain integers too"
    }


@pytest.mark.parametrize("op", ["Gelu", "ReduceMean", "Exp", "LeakyRelu", "GlobalMaxPool"])
def test_a_part_may_begin_with_integers(op: str) -> None:
    shape = (
        "1,2,1,1" if op == "GlobalMaxPool" else "1,1,1,1" if op == "ReduceMean" else "1,2,4,4"
    )
    text = (
        f"g (uint8[1,2,4,4] x) => (float[{shape}] y) "
        f"{{ d = DequantizeLinear(x, s, z) y = {op}(d) }}"
    )
    constants: Arrays = {"s": np.array(0.02, np.float32), "z": np.array(7, np.uint8)}
    assert differs(build(text, constants, opset=20)) < 1e-3


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_a_resize_that_keeps_its_aspect_goes_by_the_scale_before_rounding(
    mode: str, policy: str
) -> None:
    extents = "5,8" if policy == "not_larger" else "7,12"
    text = (
        f"g (float[1,1,3,5] x) => (float[1,1,{extents}] y) "
        f'{{ y = Resize<mode="{mode}", axes=[2,3], keep_aspect_ratio_policy="{policy}">'
        "(x, , , n) }"
    )
    assert differs(build(text, {"n": np.array([7, 8])}, opset=19)) < 1e-5


@pytest.mark.parametrize(
    "made",
    [
        "y = MaxPool<kernel_shape=[2,2], pads=[0,1,1,0], strides=[1,1]>(x)",
        "y = DepthToSpace<blocksize=2>(x)",
        "y = SpaceToDepth<blocksize=2>(x)",
        "y, v = Split<axis=1>(x, n)",
    ],
)
def test_halves_that_come_in(made: str) -> None:
    shape = {"M": "1,4,4,4", "D": "1,1,8,8", "S": "1,16,2,2"}[made.split("= ")[1][0]]
    constants: Arrays = {}
    if "Split" in made:
        shape, constants = "1,1,4,4", {"n": np.array([1, 3])}
    text = f"g (float16[1,4,4,4] x) => (float16[{shape}] y) {{ {made} }}"
    assert differs(build(text, constants)) < 1e-3


@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_products_of_whole_numbers_are_refused_by_the_rules(kind: str) -> None:
    text = f"g ({kind}[2,3] x, {kind}[3,4] w) => ({kind}[2,4] y) {{ y = MatMul(x, w) }}"
    (node,) = kernel_graph(build(text)).nodes.values()
    assert why_not_lowered(node) == f"it computes in {kind}"


def test_truths_are_not_split() -> None:
    text = "g (bool[4] x) => (bool[1] y, bool[3] v) { y, v = Split(x, n) }"
    assert refused(build(text, {"n": np.array([1, 3])}))["y"] == "it splits bool"


def test_a_maximum_of_padding_alone_is_refused() -> None:
    text = (
        "g (float[1,1,9] x) => (float[1,1,3] y) "
        "{ y = MaxPool<kernel_shape=[3], strides=[5], pads=[1,1], ceil_mode=1>(x) }"
    )
    assert refused(build(text)) == {"y": "a window of it reads nothing but padding"}


def test_numbers_of_16_bits_without_a_sign_are_refused() -> None:
    text = (
        "g (uint16[2,8] x) => (uint16[2,8] y) { d = DequantizeLinear(x, s, z) "
        "r = Relu(d) y = QuantizeLinear(r, s, z) }"
    )
    constants: Arrays = {"s": np.array(0.0005, np.float32), "z": np.array(32768, np.uint16)}
    assert "uint16" in refused(build(text, constants, opset=21))["r"]


def test_a_clip_without_a_known_bound_does_not_take_the_node_before_with_it() -> None:
    text = "g (float[1,2,4,4] x) => (float[1,2,3,3] y) { c = Conv(x, k) y = Clip(c, low) }"
    constants: Arrays = {
        "k": RANDOM.normal(size=(2, 2, 2, 2)).astype(np.float32),
        "low": np.array(np.nan, np.float32),
    }
    assert set(refused(build(text, constants))) == {"y"}


@pytest.mark.parametrize("made", ["Add(r, k)", "Softmax(r)"])
def test_a_value_that_is_read_later_is_not_written_over(made: str) -> None:
    # MUL writes over its input, RESHAPE shares what MUL wrote, and the next would write there
    text = (
        "g (float[2,6] x) => (float[3,4] s, float[2,6] y) { a = Sin(x) b = Mul(a, f) "
        f"r = Reshape(b, n) t = {made} y = Cos(b) s = Transpose(t) }}"
    )
    constants: Arrays = {
        "f": np.full((1, 6), 2, np.float32),
        "k": np.full((1, 3), 3, np.float32),
        "n": np.array([4, 3]),
    }
    if "k" not in made:
        del constants["k"]
    assert differs(build(text, constants)) < 1e-5
