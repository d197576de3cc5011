"""Every operator of TFLite that is converted: onnxruntime's answer beside LiteRT's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesdk.importers.tflite.registry import known_ops
from tests.unit.importers.tflite_cases import CASES
from tests.unit.importers.tflite_files import Net, Weights, converted, grid_over, make, opened

QUANTIZED = [name for name, case in CASES.items() if case.span is not None]
#: Kernels of LiteRT that take the older unsigned numbers.
UNSIGNED = (
    "conv, same",
    "conv, strides",
    "depthwise",
    "fully connected",
    "add",
    "mul",
    "average pool",
    "max pool",
    "concatenation",
    "reshape",
    "softmax",
    "logistic",
    "resize, linear",
    "pad",
    "mean",
)
WIDE = (
    "conv, same",
    "depthwise",
    "fully connected",
    "add",
    "mul",
    "average pool",
    "concatenation",
    "reshape",
    "transpose",
    "strided slice",
    "tanh",
    "resize, linear",
)
#: Files without a test of their own above: made by others of this folder.
ELSEWHERE = {
    "DEQUANTIZE",
    "FAKE_QUANT",
    "FILL",
    "LOG",
    "QUANTIZE",
    "RANGE",
    "RANK",
    "RSQRT",
    "SQRT",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
}


@pytest.mark.parametrize("name", CASES)
def test_a_float_operator_gives_what_litert_gives(name: str, tmp_path: Path) -> None:
    made = make(CASES[name], tmp_path)
    assert made.proof.holds, made.proof
    assert not made.converted.rounds


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, c in CASES.items()
        if any(isinstance(each, tuple) and len(each) == 4 for each in c.inputs) and not c.given
    ],
)
def test_an_operator_takes_numbers_in_the_order_of_a_convolution(
    name: str, tmp_path: Path
) -> None:
    made = make(CASES[name], tmp_path, behind=True)
    assert made.proof.holds, made.proof


@pytest.mark.parametrize("name", QUANTIZED)
def test_an_operator_on_grids_is_within_a_step_of_litert(name: str, tmp_path: Path) -> None:
    made = make(CASES[name], tmp_path, "int8")
    assert made.proof.holds, made.proof
    assert made.converted.rounds or CASES[name].dtypes


@pytest.mark.parametrize("name", UNSIGNED)
def test_an_operator_of_older_files_is_within_a_step_of_litert(
    name: str, tmp_path: Path
) -> None:
    made = make(CASES[name], tmp_path, "uint8")
    assert made.proof.holds, made.proof
    (first, *_) = made.converted.model.graph.inputs
    assert first.dtype.numpy() == np.uint8


@pytest.mark.parametrize("name", WIDE)
def test_an_operator_on_16_bits_is_within_a_step_of_litert(name: str, tmp_path: Path) -> None:
    made = make(CASES[name], tmp_path, "int16")
    assert made.proof.holds, made.proof
    assert made.converted.model.graph.opset_imports[""] == 21


def test_every_conversion_has_a_test() -> None:
    assert set(known_ops()) == {case.code for case in CASES.values()} | ELSEWHERE


def test_roots_and_logarithms_of_positive_numbers(tmp_path: Path) -> None:
    net = Net()
    given = net.given((2, 9))
    square = net.op(
        "SQUARE",
        [
            given,
        ],
        (2, 9),
        options=("SquareOptions", {}),
    )
    outs = [net.op(code, [square], (2, 9)) for code in ("SQRT", "RSQRT", "LOG")]
    made = converted(opened(net, tmp_path, *outs))
    assert made.proof.holds, made.proof


def test_numbers_that_are_known_are_made_constants(tmp_path: Path) -> None:
    net = Net()
    given = net.given((2, 3))
    rank = net.op("RANK", [given], (), dtype="int32", options=("RankOptions", {}))
    ends = [net.fixed(np.array(each, np.int32)) for each in (1, 10, 4)]
    counted = net.op("RANGE", ends, (3,), dtype="int32", options=("RangeOptions", {}))
    dims = net.fixed(np.array([2, 3], np.int32))
    value = net.fixed(np.array(0.5, "f4"))
    full = net.op("FILL", [dims, value], (2, 3), options=("FillOptions", {}))
    made = converted(opened(net, tmp_path, rank, counted, full))
    assert made.proof.holds, made.proof


def test_weights_of_half_precision_become_float(tmp_path: Path) -> None:
    net = Net()
    given = net.given((3, 8))
    halves = np.random.default_rng(0).normal(size=(5, 8)).astype("f2")
    weights = net.op("DEQUANTIZE", [net.fixed(halves)], (5, 8))
    out = net.op(
        "FULLY_CONNECTED", [given, weights, None], (3, 5), options=("FullyConnectedOptions", {})
    )
    made = converted(opened(net, tmp_path, out))
    assert made.proof.holds, made.proof
    assert made.ops == ["Gemm"]
    assert "float16" in made.converted.notes[0]


@pytest.mark.parametrize("axis", [None, 0])
def test_weights_of_8_bits_below_a_float_product_stay_8_bits(
    axis: int | None, tmp_path: Path
) -> None:
    net = Net()
    given = net.given((3, 8))
    random = np.random.default_rng(0)
    real = Weights(random.normal(size=(5, 8)), axis)
    from tests.unit.importers import tflite_files

    grid = tflite_files._weight_grid(real, "int8")
    scales = np.reshape(grid.scales, (-1, 1))
    whole = np.clip(np.rint(real.array / scales), -127, 127).astype("i1")
    out = net.op(
        "FULLY_CONNECTED",
        [given, net.fixed(whole, grid), net.fixed(random.normal(size=5).astype("f4"))],
        (3, 5),
        options=("FullyConnectedOptions", {}),
    )
    made = converted(opened(net, tmp_path, out))
    assert made.proof.holds, made.proof
    assert made.ops == ["DequantizeLinear", "Gemm"]
    assert made.converted.hybrid == (0,)
    # against the same weights in float it is exact, against LiteRT's rounded inputs it is near
    assert made.proof.outputs[0].largest < 1e-5
    assert made.proof.hybrid[0].largest < 0.03


def test_ends_and_middles_of_grids(tmp_path: Path) -> None:
    """A float input is quantized, moved to another grid and type, and comes out in float."""
    net = Net()
    first, second = grid_over(-3, 3, "int8"), grid_over(-2, 4, "uint8")
    given = net.given((1, 6, 6, 2))
    whole = net.op(
        "QUANTIZE", [given], given.shape, grid=first, options=("QuantizeOptions", {})
    )
    moved = net.op(
        "QUANTIZE", [whole], given.shape, grid=second, options=("QuantizeOptions", {})
    )
    out = net.op("DEQUANTIZE", [moved], given.shape, options=("DequantizeOptions", {}))
    made = converted(opened(net, tmp_path, out, moved))
    assert made.proof.holds, made.proof
    assert made.ops == ["QuantizeLinear", "DequantizeLinear"] * 2
    steps = {each.name: each.unit for each in made.proof.outputs}
    assert set(steps.values()) == {"steps"}


def test_rounding_that_training_left_behind_becomes_a_pair(tmp_path: Path) -> None:
    net = Net()
    given = net.given((4, 9))
    fields = {"min": -1.0, "max": 1.5, "numBits": 8}
    rounded = net.op("FAKE_QUANT", [given], (4, 9), options=("FakeQuantOptions", fields))
    made = converted(opened(net, tmp_path, rounded))
    assert made.proof.holds, made.proof
    assert made.proof.outputs[0].unit == "steps"
    assert made.ops == ["QuantizeLinear", "DequantizeLinear"]


def test_a_chain_of_convolutions_is_turned_at_its_ends_only(tmp_path: Path) -> None:
    net = Net()
    given = net.given((1, 8, 8, 3))
    tensor, random = given, np.random.default_rng(0)
    for _ in range(3):
        kernel = random.normal(size=(3, 3, 3, 3)).astype("f4")
        fields = {"strideH": 1, "strideW": 1, "fusedActivationFunction": 1}
        weights = [net.fixed(kernel), net.fixed(np.zeros(3, "f4"))]
        tensor = net.op(
            "CONV_2D", [tensor, *weights], (1, 8, 8, 3), options=("Conv2DOptions", fields)
        )
        tensor = net.op(
            "ADD",
            [tensor, net.fixed(np.ones(3, "f4"))],
            tensor.shape,
            options=("AddOptions", {}),
        )
    flat = net.op(
        "MEAN",
        [tensor, net.fixed(np.array([1, 2], "i4"))],
        (1, 3),
        options=("ReducerOptions", {}),
    )
    made = converted(opened(net, tmp_path, flat))
    assert made.proof.holds, made.proof
    assert made.ops.count("Transpose") == 1


def test_an_input_that_is_an_output_and_one_given_twice(tmp_path: Path) -> None:
    net = Net()
    given = net.given((2, 3))
    out = net.op("ABS", [given], (2, 3))
    made = converted(opened(net, tmp_path, given, out, out))
    names = [value.name for value in made.converted.model.graph.outputs]
    assert made.proof.holds, made.proof
    assert len(set(names)) == 3
