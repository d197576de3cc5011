"""Whatever a graph is made of, it quantizes, loads, and stays near to float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgesdk.model import fit_opset, open_model, simplify
from edgesdk.quantize.values import Quantized
from tests.unit.quantize.floats import SHIPPED, named, samples, static
from tests.unit.quantize.modes import far, graph, normal

#: How far 8 bits may be from float, as a share of the largest output: of one layer, of many.
NEAR, DEEP = 0.03, 0.06
Weights = dict[str, np.ndarray]


def _near(
    model: ir.Model, by: str, bound: float, data: list[Weights] | None = None
) -> Quantized:
    """Quantize, and hold every sample to the bound."""
    given = samples(model) if data is None else data
    done = static(model, by, given)
    for sample in given:
        assert far(model, done.model, **sample) < bound
    return done


# One layer of every kind


CONVOLUTIONS = {
    "one dimension": ("4, 16", "4, 14", "", (4, 4, 3)),
    "three dimensions": ("2, 6, 6, 6", "4, 4, 4, 4", "", (4, 2, 3, 3, 3)),
    "pointwise": ("4, 8, 8", "6, 8, 8", "", (6, 4, 1, 1)),
    "depthwise": ("4, 8, 8", "4, 6, 6", "group = 4", (4, 1, 3, 3)),
    "depthwise with more channels": ("4, 8, 8", "8, 6, 6", "group = 4", (8, 1, 3, 3)),
    "grouped": ("4, 8, 8", "6, 6, 6", "group = 2", (6, 2, 3, 3)),
    "dilated": ("4, 8, 8", "4, 4, 4", "dilations = [2, 2]", (4, 4, 3, 3)),
    "strided": ("4, 8, 8", "4, 3, 3", "strides = [2, 2]", (4, 4, 3, 3)),
    "one-sided pads": ("4, 8, 8", "4, 7, 8", "pads = [1, 2, 0, 0]", (4, 4, 3, 3)),
    "auto_pad": ("4, 7, 7", "4, 7, 7", 'auto_pad = "SAME_UPPER"', (4, 4, 3, 3)),
    "one channel": ("1, 8, 8", "1, 6, 6", "", (1, 1, 3, 3)),
    "the whole image": ("4, 8, 8", "4, 1, 1", "", (4, 4, 8, 8)),
}


@pytest.mark.parametrize("by", SHIPPED)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions(kind: str, by: str) -> None:
    given, made, attributes, shape = CONVOLUTIONS[kind]
    text = f"""conv (float[1, {given}] x) => (float[1, {made}] y)
    {{ y = Conv <{attributes}> (x, w, b) }}""".replace("<>", "")
    weights = {"w": normal(*shape), "b": normal(shape[0], seed=3)}
    done = _near(named(text, weights), by, NEAR)
    assert (done.quantized_nodes, done.left_float) == (1, ())


TRANSPOSED = {
    "plain": ("4, 9, 9", "", (4, 4, 2, 2)),
    "strided": ("4, 16, 16", "strides = [2, 2]", (4, 4, 2, 2)),
    "grouped": ("6, 16, 16", "strides = [2, 2], group = 2", (4, 3, 2, 2)),
    "depthwise": ("4, 16, 16", "strides = [2, 2], group = 4", (4, 1, 2, 2)),
    "padded": ("4, 16, 16", "strides = [2, 2], pads = [1, 1, 1, 1]", (4, 4, 4, 4)),
}


@pytest.mark.parametrize("by", [name for name in SHIPPED if name != "onnxruntime-cpu"])
@pytest.mark.parametrize("kind", TRANSPOSED)
def test_transposed_convolutions(kind: str, by: str) -> None:
    made, attributes, shape = TRANSPOSED[kind]
    text = f"""up (float[1, 4, 8, 8] x) => (float[1, {made}] y)
    {{ y = ConvTranspose <{attributes}> (x, w, b) }}""".replace("<>", "")
    weights = {"w": normal(*shape), "b": normal(int(made.split(",", maxsplit=1)[0]), seed=3)}
    done = _near(named(text, weights), by, NEAR)
    assert (done.quantized_nodes, done.left_float) == (1, ())


PRODUCTS = {
    "Gemm": ("4, 8", "4, 6", "Gemm (x, w, b)", (8, 6)),
    "Gemm transposed": ("4, 8", "4, 6", "Gemm <transB = 1> (x, w, b)", (6, 8)),
    "Gemm with factors": ("4, 8", "4, 6", "Gemm <alpha = 0.3, beta = 2.0> (x, w, b)", (8, 6)),
    "two dimensions": ("4, 8", "4, 6", "MatMul (x, w)", (8, 6)),
    "three dimensions": ("2, 4, 8", "2, 4, 6", "MatMul (x, w)", (8, 6)),
    "a batch of weights": ("2, 4, 8", "2, 4, 6", "MatMul (x, w)", (2, 8, 6)),
    "itself": ("2, 8, 8", "2, 8, 8", "MatMul (x, x)", (1, 1)),
}


@pytest.mark.parametrize("by", SHIPPED)
@pytest.mark.parametrize("kind", PRODUCTS)
def test_products(kind: str, by: str) -> None:
    given, made, line, shape = PRODUCTS[kind]
    text = f"dense (float[{given}] x) => (float[{made}] y) {{ y = {line} }}"
    weights = {"w": normal(*shape), "b": normal(6, seed=3)}
    done = _near(named(text, weights), by, NEAR)
    assert (done.quantized_nodes, done.left_float) == (1, ())


# What stands beside


@pytest.mark.parametrize("by", SHIPPED)
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_a_recurrent_cell_beside_a_gemm_stays_float(cell: str, by: str) -> None:
    gates = {"LSTM": 4, "GRU": 3}[cell]
    text = f"""cells (float[5, 1, 8] x) => (float[1, 4] y)
    {{ all, last = {cell} <hidden_size = 6> (x, w, r)
       s = Squeeze (last, first)
       y = Gemm (s, v) }}"""
    weights = {
        "w": normal(1, gates * 6, 8) / 3,
        "r": normal(1, gates * 6, 6) / 3,
        "first": np.array([0]),
        "v": normal(6, 4),
    }
    done = _near(named(text, weights), by, NEAR)
    # its node is named by its first result
    assert next(one.op for one in done.left_float if one.name == "all") == cell


@pytest.mark.parametrize("by", SHIPPED)
def test_an_embedding_stays_float_and_what_reads_it_does_not(by: str) -> None:
    text = """words (int64[1, 7] x) => (float[1, 7, 6] y)
    { e = Gather (table, x)
      y = MatMul (e, w) }"""
    model = named(text, {"table": normal(20, 8), "w": normal(8, 6)})
    data = [{"x": np.arange(at, at + 7).reshape(1, 7)} for at in range(0, 12, 3)]
    done = _near(model, by, NEAR, data)
    (left,) = done.left_float
    no_gather = "Gather has no 8-bit kernel (edgetpu)"
    assert left.reason == ("its data are constants" if by != "edgetpu" else no_gather)


@pytest.mark.parametrize("by", SHIPPED)
@pytest.mark.parametrize("flag", [True, False])
def test_bodies_read_values_of_the_graph_around_them(by: str, flag: bool) -> None:
    image = "float[1, 4, 8, 8]"
    text = f"""branches ({image} x, bool f) => ({image} y, {image} z)
    {{ c = Conv <pads = [1, 1, 1, 1]> (x, w)
       y = Conv <pads = [1, 1, 1, 1]> (c, w)
       z = If (f) <
           then_branch = a () => ({image} t) {{ t = Relu (c) }},
           else_branch = b () => ({image} e) {{ e = Conv <pads = [1, 1, 1, 1]> (y, w) }}
       > }}"""
    model = named(text, {"w": normal(4, 4, 3, 3) / 4})
    data = [{**sample, "f": np.array(flag)} for sample in samples(model)]
    _near(model, by, DEEP, data)


@pytest.mark.parametrize("by", SHIPPED)
def test_a_loop_reads_values_of_the_graph_around_it(by: str) -> None:
    text = """rounds (float[2, 8] x) => (float[2, 8] y)
    { h = Gemm (x, w)
      last = Loop (count, yes, x) <
          body = b (int64 i, bool go, float[2, 8] state) => (bool on, float[2, 8] next)
          { on = Identity (go)
            m = MatMul (h, w)
            next = Add (state, m) }
      >
      y = Gemm (last, w) }"""
    weights = {"w": normal(8, 8) / 4, "count": np.array(3), "yes": np.array(True)}
    done = _near(named(text, weights), by, DEEP)
    assert ("last", "the bodies of Loop stay in float") in [
        (one.name, one.reason) for one in done.left_float
    ]


# Open shapes


@pytest.mark.parametrize("by", SHIPPED)
def test_open_shapes_take_other_extents_than_calibration_had(by: str) -> None:
    text = """open (float[N, 3, H, W] x) => (float[N, 5] y)
    { c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
      r = Relu (c)
      p = GlobalAveragePool (r)
      f = Flatten (p)
      y = Gemm (f, v) }"""
    weights = {"w": normal(8, 3, 3, 3) / 4, "b": normal(8), "v": normal(8, 5)}
    model = named(text, weights)
    data = [{"x": normal(1, 3, 6 + n, 8, seed=n)} for n in range(6)]
    done = _near(model, by, NEAR, data)
    # the means of other sizes lie within what was seen
    assert far(model, done.model, x=normal(3, 3, 12, 9, seed=9)) < DEEP


# Old models


def _old(opset: int, ir_version: int, *, as_inputs: bool) -> onnx.ModelProto:
    """Write a small network as exporters of that time did."""
    weights = {"w": normal(4, 3, 3, 3) / 4, "b": normal(4), "v": normal(5, 4), "c": normal(5)}
    make, float_ = onnx.helper.make_node, onnx.TensorProto.FLOAT
    clip = make("Clip", ["n"], ["k"], min=0.0, max=6.0)
    if opset >= 11:
        weights |= {"lo": np.array(0, "f4"), "hi": np.array(6, "f4")}
        clip = make("Clip", ["n", "lo", "hi"], ["k"])
    weights |= {name: np.abs(normal(4, seed=at)) + 0.5 for at, name in enumerate("smqt")}
    nodes = [
        make("Conv", ["x", "w", "b"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        make("BatchNormalization", ["a", "s", "m", "q", "t"], ["n"]),
        clip,
        make("GlobalAveragePool", ["k"], ["p"]),
        make("Dropout", ["p"], ["d"]),
        make("Flatten", ["d"], ["f"]),
        make("Gemm", ["f", "v", "c"], ["g"], transB=1),
        make("Softmax", ["g"], ["y"], axis=1),
    ]
    inputs = [onnx.helper.make_tensor_value_info("x", float_, [1, 3, 8, 8])]
    if as_inputs:
        inputs += [
            onnx.helper.make_tensor_value_info(name, float_, array.shape)
            for name, array in weights.items()
        ]
    body = onnx.helper.make_graph(
        nodes,
        f"old{opset}",
        inputs,
        [onnx.helper.make_tensor_value_info("y", float_, [1, 5])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return onnx.helper.make_model(
        body, ir_version=ir_version, opset_imports=[onnx.helper.make_opsetid("", opset)]
    )


@pytest.mark.parametrize("by", ["onnxruntime-cpu", "litert-int8"])
@pytest.mark.parametrize(
    ("opset", "ir_version", "as_inputs"),
    [
        (7, 3, True),
        (9, 3, True),
        (9, 4, True),
        (9, 4, False),
        (11, 6, False),
        (13, 7, False),
        (17, 8, False),
        (21, 10, False),
    ],
)
def test_models_of_every_age(
    opset: int, ir_version: int, as_inputs: bool, by: str, tmp_path: Path
) -> None:
    path = tmp_path / "old.onnx"
    onnx.save(_old(opset, ir_version, as_inputs=as_inputs), path)
    opened = open_model(path)
    assert [one.name for one in opened.source.inputs] == ["x"]
    model = fit_opset(simplify(opened.ir), lowest=13, highest=None, max_ir=None)
    done = _near(model, by, NEAR)
    assert [value.name for value in done.model.graph.inputs] == ["x"]
    assert "a" not in [one.name for one in done.left_float]
    assert done.quantized_weights == 2


def test_a_graph_without_types_in_between_is_quantized_all_the_same() -> None:
    text = """g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)
    { c = Conv <pads = [1, 1, 1, 1]> (x, w)
      y = Conv <pads = [1, 1, 1, 1]> (c, w) }"""
    model = simplify(graph(text, {"w": normal(4, 4, 3, 3)}))
    assert _near(model, "onnxruntime-cpu", DEEP).kernels == (2, 2)
