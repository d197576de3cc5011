"""The operators that most networks are made of give in LiteRT what they give in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.backends.litert.graphs import build, quantize, same_numbers, with_pairs

CONV = "g (float[1,{c},{h},{w}] x) => (float[1,{m},{oh},{ow}] y) {{ y = Conv<{a}>(x, k, b) }}"


def numbers(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conv(c: int, m: int, k: tuple[int, int], out: tuple[int, int], attributes: str, g: int = 1):
    text = CONV.format(c=c, m=m, h=9, w=8, oh=out[0], ow=out[1], a=attributes)
    return build(text, {"k": numbers(m, c // g, *k), "b": numbers(m)})


CONVOLUTIONS = {
    "plain": (3, 8, (3, 3), (7, 6), "pads=[0,0,0,0]", 1),
    "same": (3, 8, (3, 3), (9, 8), "pads=[1,1,1,1]", 1),
    "strided": (3, 8, (3, 3), (5, 4), "pads=[1,1,1,1], strides=[2,2]", 1),
    "same-upper": (3, 8, (3, 3), (5, 4), 'auto_pad="SAME_UPPER", strides=[2,2]', 1),
    "same-lower": (3, 8, (3, 3), (5, 4), 'auto_pad="SAME_LOWER", strides=[2,2]', 1),
    "uneven": (3, 8, (3, 2), (10, 8), "pads=[2,1,1,0]", 1),
    "dilated": (3, 8, (3, 3), (9, 8), "pads=[2,2,2,2], dilations=[2,2]", 1),
    "pointwise": (4, 6, (1, 1), (9, 8), "pads=[0,0,0,0]", 1),
    "depthwise": (4, 4, (3, 3), (9, 8), "pads=[1,1,1,1], group=4", 4),
    "multiplied": (4, 8, (3, 3), (5, 4), "pads=[1,1,1,1], strides=[2,2], group=4", 4),
    "grouped": (8, 12, (3, 3), (9, 8), "pads=[1,1,1,1], group=4", 4),
}


@pytest.mark.parametrize("precision", ["fp32", "int8", "int16x8"])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution(case: str, precision: str, tmp_path: Path) -> None:
    c, m, k, out, attributes, groups = CONVOLUTIONS[case]
    model = conv(c, m, k, out, attributes, groups)
    if precision != "fp32":
        model = quantize(model, precision)
    answers = same_numbers(model, tmp_path)
    main = "DEPTHWISE_CONV_2D" if groups == c and groups > 1 else "CONV_2D"
    assert answers.ops[main] == 1
    if precision != "fp32":
        (op,) = (each for each in answers.graph.ops if each.name == main)
        dtypes = [answers.graph.tensors[index].dtype for index in op.inputs]
        wide = precision == "int16x8"
        assert dtypes == (["int16", "int8", "int64"] if wide else ["int8", "int8", "int32"])


GRAPHS: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "conv 1d": (
        "g (float[1,4,16] x) => (float[1,6,16] y) { y = Conv<pads=[1,1]>(x, k, b) }",
        {"k": numbers(6, 4, 3), "b": numbers(6)},
    ),
    "gemm": (
        "g (float[3,8] x) => (float[3,5] y) { y = Gemm(x, w, b) }",
        {"w": numbers(8, 5), "b": numbers(5)},
    ),
    "gemm turned": (
        "g (float[3,8] x) => (float[3,5] y) { y = Gemm<transB=1>(x, w, b) }",
        {"w": numbers(5, 8), "b": numbers(5)},
    ),
    "matmul with weights": (
        "g (float[2,3,8] x) => (float[2,3,5] y) { y = MatMul(x, w) }",
        {"w": numbers(8, 5)},
    ),
    "matmul of two values": (
        "g (float[2,3,8] x, float[2,8,5] z) => (float[2,3,5] y) { y = MatMul(x, z) }",
        {},
    ),
    "matmul of a transposed value": (
        "g (float[2,3,8] x, float[2,5,8] z) => (float[2,3,5] y) "
        "{ t = Transpose<perm=[0,2,1]>(z) y = MatMul(x, t) }",
        {},
    ),
    "max pool": (
        "g (float[1,4,9,8] x) => (float[1,4,5,4] y) "
        "{ y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x) }",
        {},
    ),
    "average pool": (
        "g (float[1,4,8,8] x) => (float[1,4,4,4] y) "
        "{ y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x) }",
        {},
    ),
    "average pool, padding not counted": (
        "g (float[1,4,8,8] x) => (float[1,4,4,4] y) "
        "{ y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x) }",
        {},
    ),
    "average pool, padding counted": (
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y) "
        "{ y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x) }",
        {},
    ),
    "average pool, ceiled": (
        "g (float[1,4,8,8] x) => (float[1,4,4,4] y) "
        "{ y = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x) }",
        {},
    ),
    "max pool 1d": (
        "g (float[1,4,8] x) => (float[1,4,4] y) "
        "{ y = MaxPool<kernel_shape=[2], strides=[2]>(x) }",
        {},
    ),
    "global mean": (
        "g (float[1,4,5,6] x) => (float[1,4,1,1] y) { y = GlobalAveragePool(x) }",
        {},
    ),
    "add": ("g (float[1,4,5] x, float[1,4,5] z) => (float[1,4,5] y) { y = Add(x, z) }", {}),
    "add a constant": (
        "g (float[1,4,5] x) => (float[1,4,5] y) { y = Add(x, c) }",
        {"c": numbers(4, 1)},
    ),
    "sub": ("g (float[1,4,5] x, float[4,1] z) => (float[1,4,5] y) { y = Sub(x, z) }", {}),
    "mul": ("g (float[1,4,5] x, float[5] z) => (float[1,4,5] y) { y = Mul(x, z) }", {}),
    "div": (
        "g (float[1,4,5] x) => (float[1,4,5] y) { y = Div(x, c) }",
        {"c": np.abs(numbers(4, 1)) + 1},
    ),
    "relu": ("g (float[1,4,5] x) => (float[1,4,5] y) { y = Relu(x) }", {}),
    "clip": (
        "g (float[1,4,5] x) => (float[1,4,5] y) { y = Clip(x, lo, hi) }",
        {"lo": np.float32(-0.5), "hi": np.float32(0.75)},
    ),
    "sigmoid": ("g (float[1,4,5] x) => (float[1,4,5] y) { y = Sigmoid(x) }", {}),
    "tanh": ("g (float[1,4,5] x) => (float[1,4,5] y) { y = Tanh(x) }", {}),
    "softmax": ("g (float[2,4,5] x) => (float[2,4,5] y) { y = Softmax<axis=-1>(x) }", {}),
    "softmax over channels": (
        "g (float[2,4,5] x) => (float[2,4,5] y) { y = Softmax<axis=1>(x) }",
        {},
    ),
    "concat": (
        "g (float[1,4,5] x, float[1,3,5] z) => (float[1,7,5] y) { y = Concat<axis=1>(x, z) }",
        {},
    ),
    "reshape": (
        "g (float[2,4,6] x) => (float[8,6] y) { r = Relu(x) y = Reshape(r, s) }",
        {"s": np.array([8, 6])},
    ),
    "flatten": ("g (float[2,4,6] x) => (float[2,24] y) { r = Relu(x) y = Flatten(r) }", {}),
    "transpose": (
        "g (float[2,4,6] x) => (float[6,2,4] y) { r = Relu(x) y = Transpose<perm=[2,0,1]>(r) }",
        {},
    ),
    "squeeze": (
        "g (float[2,1,6] x) => (float[2,6] y) { r = Relu(x) y = Squeeze(r, a) }",
        {"a": np.array([1])},
    ),
    "unsqueeze": (
        "g (float[2,6] x) => (float[2,1,6] y) { r = Relu(x) y = Unsqueeze(r, a) }",
        {"a": np.array([1])},
    ),
    "identity": ("g (float[2,6] x) => (float[2,6] y) { y = Identity(x) }", {}),
}


#: What computes in float on quantized numbers: no kernel of integers does it, or means would
#: be rounded to wider steps than the graph has.
ALSO_FLOAT = ("div", *(name for name in GRAPHS if name.startswith("average pool")))


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int16"])
@pytest.mark.parametrize("case", GRAPHS)
def test_a_small_graph(case: str, dtype: str, tmp_path: Path) -> None:
    model = build(*GRAPHS[case])
    if dtype != "float32":
        model = with_pairs(model, dtype)
    # LiteRT looks these of 16 bits up in tables
    rough = dtype == "int16" and case in ("sigmoid", "tanh", "softmax")
    answers = same_numbers(model, tmp_path, stepped=8.0 if rough else 1.0)
    if dtype != "float32" and case not in ALSO_FLOAT:
        kept = {"QUANTIZE", "DEQUANTIZE"}
        for op in answers.graph.ops:
            if op.name not in kept:
                read = answers.graph.tensors[op.inputs[0]].dtype
                assert read == ("int16" if dtype == "int16" else "int8"), op.name
